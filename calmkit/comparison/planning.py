"""From a comparison to its single runs: texts, budgets turned into steps, keys."""

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from calmkit.config import Comparison, ConfigError, Variant
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
    values_of,
    with_threads,
)
from calmkit.files import replace_file
from calmkit.heads import Head
from calmkit.locks import turn_in

from .budget import plan_steps, with_steps
from .planned_runs import PlannedRun

__all__ = ["Preparation", "plan_runs", "prepare_all"]


@dataclass(frozen=True, eq=False)
class Preparation:
    """A comparison whose every constructor has been tried and whose texts are there.

    Attributes:
        comparison: What to do.
        corpora: The text of each variant, by name.
        code: The code of each variant, by name.
    """

    comparison: Comparison
    corpora: Mapping[str, Corpus]
    code: Mapping[str, Mapping[str, str]]


def prepare_all(comparison: Comparison) -> Preparation:
    """Find what can be wrong before anything is trained.

    Raises:
        ConfigError: If a part refuses its arguments, or a text is too short; names the variant.
    """
    # Before the text is read, which takes long: the files are those that were imported just now.
    code = {variant.name: code_of_result(variant.text) for variant in comparison.variants}
    corpora = {}
    for variant in comparison.variants:
        try:
            corpora[variant.name] = prepare(variant.experiment)
        except ConfigError as error:
            raise error.at(f"variant {variant.name}") from None
        except ValueError as error:
            raise ConfigError(f"variant {variant.name}: {error}") from None
    return Preparation(comparison, corpora, code)


def plan_runs(prepared: Preparation, display: RunProgress) -> list[PlannedRun]:
    """Every variant with every seed.

    Args:
        prepared: By `prepare_all`.
        display: Where it is shown that steps are being timed.

    Raises:
        ConfigError: As `plan_steps` does.
    """
    comparison = prepared.comparison
    steps = _steps(prepared, display)
    runs = []
    for variant in comparison.variants:
        corpus, arguments = prepared.corpora[variant.name], _sampling_arguments(variant)
        for seed in comparison.seeds:
            experiment = variant.with_seed(seed)
            training = with_steps(experiment.training, steps[variant.name])
            experiment = replace(experiment, training=training)
            runs.append(
                PlannedRun(
                    variant=variant.name,
                    text=variant.text,
                    seed=seed,
                    steps=steps[variant.name],
                    key=result_key(variant.text, experiment, corpus),
                    training=training_key(variant.text, experiment, corpus, arguments),
                    autoencoder=""
                    if experiment.model == "token_lm"
                    else autoencoder_key(variant.text, experiment, corpus),
                    code=prepared.code[variant.name],
                    saves=seed == comparison.seeds[0],
                    output=comparison.output,
                    trained=comparison.trained,
                )
            )
    return runs


def _steps(prepared: Preparation, display: RunProgress) -> dict[str, int]:
    """Steps of each variant. Seconds are measured once for the same trainings, and kept with them.

    So a comparison that goes on, or measures the same models on other text, has the same steps.
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
    # What the first takes is what all get.
    keys = list(dict.fromkeys(trainings.values()))
    digest = hashlib.sha256("".join(keys).encode()).hexdigest()
    file = comparison.trained / f"plan-{digest[:16]}.json"
    # One plan for all that share the trainings, even if they begin at the same time.
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
    """Arguments of a variant's head that only sampling reads."""
    named = values_of(variant.text)["head"]
    if isinstance(named, str):  # a function that makes one, from sizes alone
        return frozenset()
    module, _, name = named["class_path"].rpartition(".")
    head: type[Head] = getattr(importlib.import_module(module), name)
    return head.sampling_arguments
