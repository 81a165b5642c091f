"""Quality against what it costs: training in FLOPs and in time, sampling likewise.

Up and to the left is better. BrierLM has a panel where any variant has one; Brier-1 always has.
Where samplers choose among candidates, the accuracy of what they choose is above: Brier-n does not
see them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from calmkit.experiments import RunResult
from calmkit.metrics import Estimate
from calmkit.reports.columns import short
from calmkit.reports.lines import Row, listed, some_choose
from calmkit.reports.plots.style import (
    MUTED,
    Look,
    Sketch,
    bars_are,
    error_bar,
    legend_below,
    log_axis,
    panels,
)

__all__ = ["draw_quality"]


@dataclass(frozen=True)
class _Cost:
    name: str
    title: str
    label: str
    unit: str
    of: Callable[[RunResult], float]


def _evaluations(run: RunResult) -> float:
    return math.nan if run.evaluations_per_sample is None else run.evaluations_per_sample


def _milliseconds(run: RunResult) -> float:
    return run.microseconds_per_token / 1000


_COSTS = (
    _Cost(
        "training_flops", "training FLOPs", "FLOPs of training", "FLOPs",
        lambda run: run.training_flops,
    ),
    _Cost(
        "training_time", "training time", "seconds of training", "s",
        lambda run: run.training_seconds,
    ),
    _Cost(
        "sampling_evaluations", "sampling evaluations", "evaluations of the head for one sample",
        "evaluations", _evaluations,
    ),
    _Cost(
        "sampling_time", "time of a token", "milliseconds for a generated token", "ms",
        _milliseconds,
    ),
)  # fmt: skip

_Point = tuple[float, Row, Look]


def draw_quality(rows: Sequence[Row], looks: Sequence[Look]) -> Iterator[Sketch]:
    """A picture for each cost that at least two variants have."""
    for cost in _COSTS:
        points = [
            (row.mean(cost.of), row, look)
            for row, look in zip(rows, looks, strict=True)
            if math.isfinite(row.summary.brier[0].value)
        ]
        points = [point for point in points if math.isfinite(point[0])]
        if len(points) > 1:
            yield _drawn(cost, points, accuracy=some_choose(rows))


def _drawn(cost: _Cost, points: Sequence[_Point], *, accuracy: bool) -> Sketch:
    panels_wanted: list[tuple[str, Callable[[Row], Estimate]]] = [
        ("Brier-1", lambda row: row.summary.brier[0])
    ]
    if any(row.summary.brier_lm.value > 0 for _, row, _ in points):
        panels_wanted.insert(0, ("BrierLM", lambda row: row.summary.brier_lm))
    if accuracy:
        panels_wanted.insert(0, ("accuracy", lambda row: row.summary.accuracy))
    figure, axes = panels([2.5] * len(panels_wanted), sharex=True)
    for panel, (name, score) in zip(axes[:, 0], panels_wanted, strict=True):
        for x, row, look in points:
            estimate = score(row)
            if name == "BrierLM" and not estimate.value > 0:
                # It has no value; an empty point keeps the variant in the legend.
                estimate = Estimate(math.nan, math.nan)
            panel.errorbar(
                [x], [estimate.value], yerr=error_bar(estimate), label=row.name, **look.as_points
            )
        panel.set_ylabel(f"{name}, %")
        panel.margins(x=0.1, y=0.12)
    unigram = [row.variant.runs[0].unigram_brier[0].value for _, row, _ in points]
    if len(set(unigram)) == 1:
        axes[-1, 0].axhline(
            unigram[0], color=MUTED, linestyle="--", linewidth=1.2, label="unigram"
        )
    scale = " (log scale)" if log_axis(axes[-1, 0], [x for x, _, _ in points]) else ""
    axes[-1, 0].set_xlabel(f"{cost.label}{scale}")
    figure.align_ylabels()
    legend_below(figure, axes[-1, 0])
    missing = [row.name for _, row, _ in points if not row.summary.brier_lm.value > 0]
    without = f"Without a BrierLM: {listed(missing)}. " if missing else ""
    judged, score = panels_wanted[0 if accuracy else -1]
    scored = [point for point in points if math.isfinite(score(point[1]).value)]
    best = max(scored or points, key=lambda point: score(point[1]).value)
    bars = bars_are(score(row) for _, score in panels_wanted for _, row, _ in points)
    return Sketch(
        cost.name,
        f"Quality against {cost.title}",
        f"Up and to the left is better; {bars}. {without}"
        f"Highest {judged}: {best[1].name}, at {short(best[0])} {cost.unit}.",
        figure,
    )
