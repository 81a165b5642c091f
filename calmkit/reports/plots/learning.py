"""Learning curves: Brier-1 on a few held-out rows against steps, FLOPs and seconds of training.

FLOPs and seconds are proportional to steps. Curves of several seeds are averaged point by point.
Some heads start at -100 %; the axis is cut at minus the best score, to keep the rest visible.
"""

from collections.abc import Callable, Iterator, Sequence

from calmkit.experiments import RunResult
from calmkit.reports.lines import Line, listed
from calmkit.reports.plots.style import Look, Sketch, legend_below, panels

__all__ = ["draw_learning", "mean_curve"]

_COSTS: tuple[tuple[str, str, str, Callable[[RunResult], float | None]], ...] = (
    ("learning_steps", "training steps", "steps", lambda run: run.steps),
    ("learning_flops", "training FLOPs", "FLOPs", lambda run: run.training_flops),
    ("learning_time", "training time", "seconds", lambda run: run.training_seconds),
)


def draw_learning(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """One plot against steps, one against FLOPs and one against seconds."""
    for name, title, label, cost in _COSTS:
        curves = [
            (line, look, curve)
            for line, look in zip(lines, looks, strict=True)
            if len(curve := mean_curve(line, cost)) > 1
        ]
        if not curves:
            continue
        figure, axes = panels([3.2])
        panel = axes[0, 0]
        for line, look, curve in curves:
            panel.plot(*zip(*curve, strict=True), label=line.name, **look.as_curve)
        values = [y for _, _, curve in curves for _, y in curve]
        cut = ""
        if 0 < max(values) < -min(values):
            panel.set_ylim(bottom=-max(values))
            cut = " Curves that start below the axis are cut."
        panel.set_ylabel("Brier-1, %")
        panel.set_xlabel(f"{label} of training")
        panel.set_xlim(left=0)
        legend_below(figure, panel)
        ends = [f"{line.name} {curve[-1][1]:.3g}" for line, _, curve in curves]
        yield Sketch(
            name,
            f"Learning curves over {title}",
            f"Brier-1 on a few held-out rows during training.{cut} At the end: {listed(ends)}.",
            figure,
        )


def mean_curve(line: Line, cost: Callable[[RunResult], float | None]) -> list[tuple[float, float]]:
    """Points of cost and Brier-1, averaged over the seeds with a known cost."""
    curves = [
        [(step / run.steps * spent, value) for step, value in run.validation_brier]
        for run in line.variant.runs
        if run.steps and (spent := cost(run)) is not None
    ]
    means = [
        [sum(numbers) / len(numbers) for numbers in zip(*point, strict=True)]
        for point in zip(*curves, strict=False)
    ]
    return [(x, y) for x, y in means]
