"""A comparison as CSV at full precision: one table of runs and one of variants.

`to_csv` has one line per variant and seed. `to_summary_csv` has one line per variant, with errors
and differences to the first one, and one per baseline. An empty field is a missing number.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from calmkit.comparison import ComparisonResult
from calmkit.evaluation import Timing
from calmkit.experiments import RunResult
from calmkit.metrics import Estimate

from .base import Report
from .lines import CONTINUED, Line, continued

__all__ = ["to_csv", "to_summary_csv"]

_Fields = dict[str, str | int | float | None]
_COSTS = (
    "training_flops", "training_seconds", "sampling_flops", "draws_per_chunk", "unsettled",
    "autoencoder_accuracy",
)  # fmt: skip


def to_csv(result: ComparisonResult) -> str:
    """One line per variant and seed; a failed run has its reason."""
    lines: list[_Fields] = []
    for variant in result.variants:
        size: _Fields = {
            "variant": variant.name, "head": variant.head, "parameters": variant.parameters,
            "head_parameters": variant.head_parameters,
        }  # fmt: skip
        lines += [size | _run_fields(run) for run in variant.runs]
        lines += [
            size | {"seed": failure.seed, "failure": failure.reason}
            for failure in variant.failures
        ]
    return _written(lines)


def to_summary_csv(report: Report) -> str:
    """One line per variant and one per baseline."""
    lines = [_summary_fields(line) for line in report.lines]
    lines += [
        {"variant": base.name, "brier_lm": base.brier_lm, **_brier(base.brier)}
        for base in report.baselines
    ]
    return _written(lines)


def _run_fields(run: RunResult) -> _Fields:
    return {
        "seed": run.seed,
        "steps": run.steps,
        "trained_tokens": run.trained_tokens,
        "brier_lm": run.brier_lm,
        **_brier(run.brier),
        **_with_error("energy_score", run.energy_score),
        **_with_error("cross_entropy", run.cross_entropy),
        **_with_error("chosen_accuracy", run.chosen_accuracy),
        "evaluations_per_sample": run.evaluations_per_sample,
        **{name: getattr(run, name) for name in _COSTS},
        **_time(run.microseconds_per_token),
        **_continued([run]),
        "failure": "",
    }


def _summary_fields(line: Line) -> _Fields:
    summary = line.summary
    fields: _Fields = {"variant": line.name, "failures": len(line.variant.failures)}
    if line.has_failed:
        return fields | {"seeds": 0}
    fields |= {"seeds": len(summary.seeds), **_with_error("brier_lm", summary.brier_lm)}
    fields |= _brier(summary.brier)
    for name in ("energy_score", "cross_entropy"):
        fields |= _with_error(name, line.loss(name))
    shared = len(summary.shared_seeds), summary.shared_documents
    fields |= {"shared_seeds": shared[0], "shared_documents": shared[1]}
    fields |= _continued(line.variant.runs)
    fields |= _with_error("brier_lm_difference", summary.brier_lm_difference)
    for n in range(4):
        difference = summary.brier_difference[n] if summary.brier_difference else None
        fields |= _with_error(f"brier_{n + 1}_difference", difference)
    fields |= _with_error("loss_difference", summary.loss_difference)
    fields |= _with_error("chosen_accuracy", summary.accuracy)
    fields |= _with_error("chosen_accuracy_difference", summary.accuracy_difference)
    fields |= {name: line.mean(lambda run, name=name: getattr(run, name)) for name in _COSTS}
    return fields | _time(line.timing)


def _continued(runs: Sequence[RunResult]) -> _Fields:
    fields: _Fields = {}
    for name in CONTINUED:
        fields |= _with_error(f"continued_{name}", continued(runs, name))
    return fields


def _brier(scores: Sequence[Estimate]) -> _Fields:
    fields: _Fields = {}
    for n, score in enumerate(scores, 1):
        fields |= _with_error(f"brier_{n}", score)
    return fields


def _time(timing: Timing | None) -> _Fields:
    return {
        "microseconds_per_token": None if timing is None else timing.median,
        "microseconds_per_token_spread": None if timing is None else timing.spread,
    }


def _with_error(name: str, estimate: Estimate | None) -> _Fields:
    if estimate is None:
        return {name: None, f"{name}_se": None}
    return {name: estimate.value, f"{name}_se": estimate.standard_error}


def _written(lines: Sequence[Mapping[str, str | int | float | None]]) -> str:
    text = io.StringIO()
    # Failed runs have few fields. Collect the columns of all lines, longest line first.
    names = dict.fromkeys(name for line in sorted(lines, key=len, reverse=True) for name in line)
    writer = csv.DictWriter(text, fieldnames=list(names), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
