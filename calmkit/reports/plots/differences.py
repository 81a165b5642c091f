"""Differences to the first variant with their 95 % intervals, as a forest plot.

An interval that leaves out zero says that the two differ, as far as text and seeds can tell. With
fewer than 8 documents there are standard errors in its place, which say less.
"""

from collections.abc import Iterator, Sequence

from calmkit.metrics import Estimate
from calmkit.reports.lines import Line, listed, some_choose
from calmkit.reports.plots.style import (
    INK,
    Look,
    Sketch,
    bars_are,
    error_bar,
    height_of_lines,
    name_lines,
    panels,
)

__all__ = ["draw_differences"]


def draw_differences(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """One panel for Brier-1, one for BrierLM where two have it, one for choices of samplers."""
    first = next((line.name for line in lines if not line.has_failed), "")
    found: dict[str, list[tuple[Line, Look, Estimate]]] = {"Brier-1": [], "BrierLM": []}
    if some_choose(lines):
        found = {"accuracy": [], **found}
    for line, look in zip(lines, looks, strict=True):
        for name, estimate in (
            ("Brier-1", next(iter(line.summary.brier_difference), None)),
            ("BrierLM", line.summary.brier_lm_difference),
            ("accuracy", line.summary.accuracy_difference),
        ):
            if name in found and estimate is not None:
                found[name].append((line, look, estimate))
    found = {name: points for name, points in found.items() if points}
    if not found:
        return
    figure, axes = panels(
        [height_of_lines([line.name for line, _, _ in points]) for points in found.values()]
    )
    for panel, (name, points) in zip(axes[:, 0], found.items(), strict=True):
        for place, (_, look, estimate) in enumerate(points):
            panel.errorbar([estimate.value], [place], xerr=error_bar(estimate), **look.as_points)
        panel.axvline(0.0, color=INK, linewidth=1.0)
        name_lines(panel, [line.name for line, _, _ in points])
        panel.set_xlabel(f"{name} less that of {first}, per cent")
    name, points = next(iter(found.items()))
    values = listed([f"{line.name} {estimate.value:+.3g}" for line, _, estimate in points])
    bars = bars_are(estimate for points in found.values() for _, _, estimate in points)
    yield Sketch(
        "differences",
        f"Differences to {first}",
        f"With {bars}; right of zero is better than the first variant. {name}: {values}.",
        figure,
    )
