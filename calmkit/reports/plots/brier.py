"""The Brier-n profile: what a variant knows of single tokens, pairs, triples and quadruples.

Each n has a scale of its own, as they differ by orders of magnitude. The grey bars are the unigram
baseline at the places where that variant is scored.
"""

import math
from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Row, listed
from calmkit.reports.plots.style import (
    INK,
    MUTED,
    Look,
    Sketch,
    bars_are,
    error_bar,
    height_of_rows,
    name_rows,
    panels,
)

__all__ = ["draw_brier"]


def draw_brier(rows: Sequence[Row], looks: Sequence[Look]) -> Iterator[Sketch]:
    """Points with intervals, in a panel for each n."""
    shown = [
        (row, look)
        for row, look in zip(rows, looks, strict=True)
        if math.isfinite(row.summary.brier[0].value)
    ]
    if not shown:
        return
    names = [row.name for row, _ in shown]
    figure, axes = panels([height_of_rows(names)] * 2, columns=2, sharey=True)
    for n, panel in enumerate(axes.flat):
        for place, (row, look) in enumerate(shown):
            score = row.summary.brier[n]
            unigram = row.variant.runs[0].unigram_brier[n].value
            panel.plot([unigram] * 2, [place - 0.38, place + 0.38], color=MUTED, linewidth=2.2)
            panel.errorbar([score.value], [place], xerr=error_bar(score), **look.as_points)
        panel.axvline(0.0, color=INK, linewidth=0.8)
        panel.set_title(f"Brier-{n + 1}, %")
        name_rows(panel, names)
        panel.locator_params(axis="x", nbins=4)
        panel.margins(x=0.12)
    yield Sketch(
        "brier",
        "Brier-1 to 4 on held-out text",
        f"Per cent with {bars_are(row.summary.brier[0] for row, _ in shown)}; right is better. "
        "Grey bars: unigram. "
        f"Shown: {listed(names)}.",
        figure,
    )
