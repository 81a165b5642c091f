"""Quality against the cost of training and of sampling, in FLOPs or evaluations and in time.

Up and to the left is better. Brier-1 always has a panel, BrierLM only if it is defined for a
variant. If a sampler chooses among candidates, the top panel shows the sampler accuracy, since
Brier-n does not depend on the sampler.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from calmkit.experiments import RunResult
from calmkit.metrics import Estimate
from calmkit.reports.columns import short
from calmkit.reports.lines import Line, baselines, listed, some_choose
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
    of: Callable[[RunResult], float | None]


def _milliseconds(run: RunResult) -> float | None:
    time = run.microseconds_per_token
    return None if time is None else time.median / 1000


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
        "sampling_evaluations", "sampling evaluations", "evaluations of the head per sample",
        "evaluations", lambda run: run.evaluations_per_sample,
    ),
    _Cost(
        "sampling_time", "time per token", "milliseconds per generated token", "ms",
        _milliseconds,
    ),
)  # fmt: skip

_Point = tuple[float, Line, Look]


def draw_quality(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """One plot for each cost that at least two variants have."""
    accuracy = some_choose(lines) and any(line.summary.accuracy for line in lines)
    for cost in _COSTS:
        points = [
            (x, line, look)
            for line, look in zip(lines, looks, strict=True)
            if line.summary.brier and (x := line.mean(cost.of)) is not None
        ]
        if len(points) > 1:
            yield _drawn(cost, points, accuracy=accuracy)


def _brier_lm(line: Line) -> Estimate | None:
    return line.summary.brier_lm if line.summary.has_brier_lm else None


def _drawn(cost: _Cost, points: Sequence[_Point], *, accuracy: bool) -> Sketch:
    panels_wanted: list[tuple[str, Callable[[Line], Estimate | None]]] = [
        ("Brier-1", lambda line: line.summary.brier[0])
    ]
    if any(line.summary.has_brier_lm for _, line, _ in points):
        panels_wanted.insert(0, ("BrierLM", _brier_lm))
    if accuracy:
        panels_wanted.insert(0, ("accuracy", lambda line: line.summary.accuracy))
    figure, axes = panels([2.5] * len(panels_wanted), sharex=True)
    for panel, (name, score) in zip(axes[:, 0], panels_wanted, strict=True):
        for x, line, look in points:
            if (estimate := score(line)) is None:
                panel.plot([], [], label=line.name, **look.as_points)  # for the legend
                continue
            panel.errorbar(
                [x], [estimate.value], yerr=error_bar(estimate), label=line.name, **look.as_points
            )
        panel.set_ylabel(f"{name}, %")
        panel.margins(x=0.1, y=0.12)
    counting = baselines([line for _, line, _ in points])
    for base, style in zip(counting, ("--", "-.", ":"), strict=False):
        if len(base.variants) == len(points):  # the same for all
            axes[-1, 0].axhline(
                base.brier[0].value, color=MUTED, linestyle=style, linewidth=1.2, label=base.name
            )
    scale = " (log scale)" if log_axis(axes[-1, 0], [x for x, _, _ in points]) else ""
    axes[-1, 0].set_xlabel(f"{cost.label}{scale}")
    figure.align_ylabels()
    legend_below(figure, axes[-1, 0])
    missing = [line.name for _, line, _ in points if not line.summary.has_brier_lm]
    without = f"Without a BrierLM: {listed(missing)}. " if missing else ""
    judged, score = panels_wanted[0 if accuracy else -1]
    known = [(one.value, x, line.name) for x, line, _ in points if (one := score(line))]
    _, at, best = max(known, key=lambda entry: entry[0])
    bars = bars_are(score(line) for _, score in panels_wanted for _, line, _ in points)
    return Sketch(
        cost.name,
        f"Quality against {cost.title}",
        f"Up and to the left is better; {bars}. {without}"
        f"Highest {judged}: {best}, at {short(at)} {cost.unit}.",
        figure,
    )
