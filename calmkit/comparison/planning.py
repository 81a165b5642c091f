"""Plan the runs of a comparison: prepare texts, convert the budget to steps, compute keys."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from calmkit.config import Comparison, ConfigError, Variant, values_of
from calmkit.data import Corpus
from calmkit.experiments import (
    RunProgress,
    Trainer,
    autoencoder_key,
    code_of_result,
    prepare,
    result_key,
    threads_of_a_run,
    training_key,
    with_threads,
)
from calmkit.files import replace_file
from calmkit.heads import Head
from calmkit.locks import turn_in

from .budget import plan_steps, with_steps
from .planned_runs import PlannedRun
from .results import TrialResult
from .softmax_baseline import with_softmax

__all__ = ["Preparation", "plan_runs", "planned_run", "prepare_all", "steps_of"]


@dataclass(frozen=True, eq=False)
class Preparation:
    """A comparison with validated configs and prepared texts.

    Attributes:
        comparison: The comparison.
        corpora: The text of each variant, by name.
        code: Digests of each variant's code, by name.
        steps: Steps of each variant, by name; None if they have not been planned.
        trials: The trials of tuning, by the name of the variant.
        tuning: How values were chosen by them, as a sentence.
    """

    comparison: Comparison
    corpora: Mapping[str, Corpus]
    code: Mapping[str, Mapping[str, str]]
    steps: Mapping[str, int] | None = None
    trials: Mapping[str, tuple[TrialResult, ...]] = field(default_factory=dict)
    tuning: str = ""


def prepare_all(comparison: Comparison, display: RunProgress | None = None) -> Preparation:
    """Validate all configs and prepare the texts before anything is trained.

    Args:
        comparison: The comparison.
        display: Where the preparation of text that is not in the cache is shown; None: nowhere.

    Raises:
        ConfigError: If a part refuses its arguments, or a text is too short; names the variant.
    """
    comparison = with_softmax(comparison)
    # Reading text takes long. Digests taken before it are those of the code imported just now.
    code = {variant.name: code_of_result(variant.text) for variant in comparison.variants}
    corpora = {}
    for variant in comparison.variants:
        try:
            corpora[variant.name] = prepare(variant.experiment, display)
        except ConfigError as error:
            raise error.at(f"variant {variant.name}") from None
        except ValueError as error:
            raise ConfigError(f"variant {variant.name}: {error}") from None
    return Preparation(comparison, corpora, code)


def plan_runs(prepared: Preparation, display: RunProgress) -> list[PlannedRun]:
    """Plan a run of every variant with every seed.

    Args:
        prepared: The comparison, from `prepare_all`.
        display: Receives a note when steps are timed.

    Raises:
        ConfigError: As in `plan_steps`.
    """
    comparison = prepared.comparison
    steps = prepared.steps or steps_of(prepared, display)
    return [
        planned_run(prepared, variant, seed, steps[variant.name])
        for variant in comparison.variants
        for seed in comparison.seeds
    ]


def planned_run(
    prepared: Preparation, variant: Variant, seed: int, steps: int, *, is_trial: bool = False
) -> PlannedRun:
    """Plan one run."""
    comparison, corpus = prepared.comparison, prepared.corpora[variant.name]
    experiment = variant.with_seed(seed)
    experiment = replace(experiment, training=with_steps(experiment.training, steps))
    arguments = _sampling_arguments(variant)
    return PlannedRun(
        variant=variant.name,
        text=variant.text,
        seed=seed,
        steps=steps,
        key=result_key(variant.text, experiment, corpus, tuning=is_trial),
        training=training_key(variant.text, experiment, corpus, arguments),
        autoencoder=""
        if experiment.model == "token_lm"
        else autoencoder_key(variant.text, experiment, corpus),
        code=prepared.code[variant.name],
        saves=seed == comparison.seeds[0] and not is_trial,
        output=comparison.output,
        trained=comparison.trained,
        is_trial=is_trial,
    )


def steps_of(prepared: Preparation, display: RunProgress) -> dict[str, int]:
    """Steps of each variant under the budget.

    Timings are stored beside the trainings and made only once. A resumed comparison, or one that
    evaluates the same models on other text, thus has the same steps.

    Raises:
        ConfigError: As in `plan_steps`.
    """
    comparison = prepared.comparison
    trainers = {
        v.name: Trainer(v.experiment, prepared.corpora[v.name], display)
        for v in comparison.variants
    }
    trainings = {
        v.name: training_key(
            v.text, v.experiment, prepared.corpora[v.name], _sampling_arguments(v)
        )
        for v in comparison.variants
    }
    if comparison.budget != "seconds":
        return plan_steps(comparison, trainers, trainings)
    # The first variant sets the budget, so the order of the keys matters.
    keys = list(dict.fromkeys(trainings.values()))
    digest = hashlib.sha256("".join(keys).encode()).hexdigest()
    file = comparison.trained / f"plan-{digest[:16]}.json"
    # Comparisons that share the trainings share one plan, even if they start at the same time.
    with turn_in(comparison.trained, tell=display.note):
        known = _read_plan(file)
        if set(known) != set(keys):
            display.note("budget seconds: timing steps of every variant ...")
            with with_threads(threads_of_a_run(comparison)):
                steps = plan_steps(comparison, trainers, trainings)
            known = {trainings[name]: count for name, count in steps.items()}
            replace_file(file, json.dumps(known, indent=1))
    return {name: known[key] for name, key in trainings.items()}


def _read_plan(file: Path) -> dict[str, int]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _sampling_arguments(variant: Variant) -> frozenset[str]:
    """Arguments of a variant's head that are used only in sampling."""
    named = values_of(variant.text)["head"]
    if isinstance(named, str):  # a function that makes a head from its sizes only
        return frozenset()
    module, _, name = named["class_path"].rpartition(".")
    head: type[Head] = getattr(importlib.import_module(module), name)
    return head.sampling_arguments
