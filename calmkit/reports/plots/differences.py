"""Differences to the first variant with their 95 % intervals, as a forest plot.

An interval that leaves out zero says that the two differ, as far as text and seeds can tell. With
fewer than 8 documents there are standard errors in its place, which say less.
"""

import math
from collections.abc import Iterator, Sequence

from calmkit.metrics import Estimate
from calmkit.reports.lines import Row, listed, some_choose
from calmkit.reports.plots.style import (
    INK,
    Look,
    Sketch,
    bars_are,
    error_bar,
    height_of_rows,
    name_rows,
    panels,
)

__all__ = ["draw_differences"]


def draw_differences(rows: Sequence[Row], looks: Sequence[Look]) -> Iterator[Sketch]:
    """One panel for Brier-1, one for BrierLM where two have it, one for choices of samplers."""
    first = next((row.name for row in rows if not row.has_failed), "")
    found: dict[str, list[tuple[Row, Look, Estimate]]] = {"Brier-1": [], "BrierLM": []}
    if some_choose(rows):
        found = {"accuracy": [], **found}
    for row, look in zip(rows, looks, strict=True):
        for name, estimate in (
            ("Brier-1", row.summary.brier_difference[0]),
            ("BrierLM", row.summary.brier_lm_difference),
            ("accuracy", row.summary.accuracy_difference),
        ):
            if name in found and math.isfinite(estimate.value):
                found[name].append((row, look, estimate))
    found = {name: points for name, points in found.items() if points}
    if not found:
        return
    figure, axes = panels(
        [height_of_rows([row.name for row, _, _ in points]) for points in found.values()]
    )
    for panel, (name, points) in zip(axes[:, 0], found.items(), strict=True):
        for place, (_, look, estimate) in enumerate(points):
            panel.errorbar([estimate.value], [place], xerr=error_bar(estimate), **look.as_points)
        panel.axvline(0.0, color=INK, linewidth=1.0)
        name_rows(panel, [row.name for row, _, _ in points])
        panel.set_xlabel(f"{name} less that of {first}, per cent")
    told = [f"{row.name} {estimate.value:+.3g}" for row, _, estimate in next(iter(found.values()))]
    bars = bars_are(estimate for points in found.values() for _, _, estimate in points)
    yield Sketch(
        "differences",
        f"Differences to {first}",
        f"With {bars}; right of zero is better than the first variant. "
        f"{next(iter(found))}: {listed(told)}.",
        figure,
    )
