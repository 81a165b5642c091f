"""Tune every variant by one protocol, so that none wins by its defaults: `--tune KEY=[VALUES]`.

Each combination of the values of all `tune` keys is a trial of each variant. A trial has a tenth
of the steps that the combination would have under the budget of the comparison, with schedule and
warm-up to scale, and the first seed. The variant then takes the combination with the highest
Brier-1; at equal scores, the first. Every variant has the same number of trials.

Brier-1 is the one score that every kind of model has on the same scale, softmax or head: losses of
different heads, and energy scores over different latents, are not comparable. It is measured on
held-out rows that are not among those of the final evaluation, as many again, with the same
number of draws, so that the choice does not bias the final scores. A tenth of the budget favours
values that learn quickly, such as high learning rates.

Trials are stored like runs, so an interrupted comparison resumes. A failed trial is not chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from calmkit.config import Comparison, ConfigError, Variant, check_parts, expand, parse_text
from calmkit.experiments import (
    EvaluationPlan,
    RunProgress,
    code_of_result,
    threads_of_a_run,
)

from .executing import run_all
from .planned_runs import PlannedRun, read_trial
from .planning import Preparation, planned_run, steps_of
from .results import Failure, TrialResult

__all__ = ["tune"]

_SHARE = 0.1  # of a variant's steps
# Keys that define what is compared; a choice among them would not be one of tuning.
_FIXED = (
    "accelerator", "cache_dir", "checkpoint", "chunk_size", "data", "evaluation",
    "evaluation_data", "evaluation_seed", "finetune", "model", "output", "positions", "precision",
    "seed", "training.steps", "validation_fraction", "vocab_size",
)  # fmt: skip


def tune(prepared: Preparation, display: RunProgress) -> Preparation:
    """Run the trials that are not stored, and give each variant the values chosen for it.

    Returns:
        The comparison with the chosen values, its steps and the trials; unchanged if it tunes
        nothing.

    Raises:
        ConfigError: If a key cannot be tuned, a value is refused, no value changes the training of
            some variant, or the held-out text is too short to have other rows.
    """
    comparison = prepared.comparison
    if not comparison.tune:
        return prepared
    trials = {variant.name: _trials(variant, comparison) for variant in comparison.variants}
    wide = _with_trials(prepared, trials)
    steps = steps_of(wide, display)
    try:
        runs = {
            name: [_planned(wide, trial, steps[trial.name]) for trial, _ in found]
            for name, found in trials.items()
        }
    except ValueError as error:
        raise ConfigError(f"tune: {error}") from None
    _check_effect(runs, comparison)
    every = [run for found in runs.values() for run in found]
    left = [run for run in every if read_trial(run) is None]
    display.note(f"tuning: {len(left)} of {len(every)} trials to run.")
    failures = run_all(
        left,
        processes=comparison.processes,
        threads=threads_of_a_run(comparison),
        display=display,
    )
    results = {name: _results(trials[name], runs[name], failures) for name in trials}
    variants, chosen_steps = [], {}
    for variant in comparison.variants:
        place = [result.is_chosen for result in results[variant.name]].index(True)
        chosen, _ = trials[variant.name][place]
        variants.append(replace(chosen, name=variant.name))
        chosen_steps[variant.name] = steps[chosen.name]
    return replace(
        prepared,
        comparison=replace(comparison, variants=tuple(variants)),
        code={variant.name: code_of_result(variant.text) for variant in variants},
        steps=chosen_steps,
        trials=results,
        tuning=_protocol(prepared, len(next(iter(results.values())))),
    )


def _trials(variant: Variant, comparison: Comparison) -> list[tuple[Variant, dict[str, str]]]:
    """Every combination of the values as a variant called VARIANT/VALUES, with its values."""
    for key in comparison.tune:
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED):
            raise ConfigError(
                f"tune must not vary {key}, which defines what is compared; use grid to compare "
                "its values."
            )
    found = []
    for entry in expand({}, comparison.tune, name_of_grid="tune"):
        name = f"{variant.name}/{entry.name}"
        try:
            parsed = parse_text(variant.text, options=entry.options)
            check_parts(parsed.experiment)
        except ConfigError as error:
            raise error.at(f"variant {name}") from None
        values = (option.removeprefix("--").partition("=") for option in entry.options)
        found.append(
            (
                Variant(name, parsed.experiment, parsed.text),
                {key: value for key, _, value in values},
            )
        )
    return found


def _protocol(prepared: Preparation, trials: int) -> str:
    """How the values are chosen, as a sentence."""
    comparison = prepared.comparison
    first = comparison.variants[0]
    rows = EvaluationPlan.of_training(
        first.experiment, prepared.corpora[first.name]
    ).rows_to_tune()
    return (
        f"{trials} trials of each variant, with a tenth of its steps and seed "
        f"{comparison.seeds[0]}; chosen by Brier-1 on {len(rows.document)} rows of held-out text "
        "that the scores do not use"
    )


def _with_trials(
    prepared: Preparation, trials: Mapping[str, Sequence[tuple[Variant, object]]]
) -> Preparation:
    """The comparison with every trial as another variant, after those as configured."""
    owners = {trial.name: name for name, found in trials.items() for trial, _ in found}
    every = [trial for found in trials.values() for trial, _ in found]
    comparison = prepared.comparison
    return replace(
        prepared,
        comparison=replace(comparison, variants=(*comparison.variants, *every)),
        corpora={
            **prepared.corpora,
            **{name: prepared.corpora[of] for name, of in owners.items()},
        },
        code={**prepared.code, **{trial.name: code_of_result(trial.text) for trial in every}},
    )


def _planned(wide: Preparation, trial: Variant, steps: int) -> PlannedRun:
    few = max(1, round(_SHARE * steps))
    return planned_run(wide, trial, wide.comparison.seeds[0], few, is_trial=True)


def _check_effect(runs: Mapping[str, Sequence[PlannedRun]], comparison: Comparison) -> None:
    """Refuse values of which none changes the training of some variant."""
    for name, found in runs.items():
        if len(found) > 1 and len({run.training for run in found}) == 1:
            raise ConfigError(
                f"tune must vary the training of every variant; {', '.join(comparison.tune)} "
                f"changes nothing in that of {name}. Tune a key of its training or its parts."
            )


def _results(
    trials: Sequence[tuple[Variant, Mapping[str, str]]],
    runs: Sequence[PlannedRun],
    failures: Mapping[tuple[str, int], Failure],
) -> tuple[TrialResult, ...]:
    """The trials of one variant, of which exactly one is chosen."""
    scores = [read_trial(run) for run in runs]
    values = [float("-inf") if score is None else score.value for score in scores]
    best = values.index(max(values))
    return tuple(
        TrialResult(
            values=trial_values,
            steps=run.steps,
            brier_1=score,
            is_chosen=place == best,
            failure=failures[run.variant, run.seed].reason
            if (run.variant, run.seed) in failures
            else "",
        )
        for place, ((_, trial_values), run, score) in enumerate(
            zip(trials, runs, scores, strict=True)
        )
    )
