"""The Brier-n profile: scores of single tokens, pairs, triples and quadruples.

Each n has its own scale, since the scores differ by orders of magnitude. The grey bars are the
baselines at the places where the variant is scored.
"""

from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Line, listed
from calmkit.reports.plots.style import (
    INK,
    MUTED,
    Look,
    Sketch,
    bars_are,
    error_bar,
    height_of_lines,
    name_lines,
    panels,
)

__all__ = ["draw_brier"]


def draw_brier(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """Points with intervals, in one panel per n."""
    shown = [(line, look) for line, look in zip(lines, looks, strict=True) if line.summary.brier]
    if not shown:
        return
    names = [line.name for line, _ in shown]
    kinds = list(dict.fromkeys(kind for line, _ in shown for kind in line.baselines))
    counting = f"Grey bars: {listed(kinds)}. " if kinds else ""
    figure, axes = panels([height_of_lines(names)] * 2, columns=2, sharey=True)
    for n, panel in enumerate(axes.flat):
        for place, (line, look) in enumerate(shown):
            score = line.summary.brier[n]
            ends = [place - 0.38, place + 0.38]
            for brier in line.baselines.values():
                panel.plot([brier[n].value] * 2, ends, color=MUTED, linewidth=2.2)
            panel.errorbar([score.value], [place], xerr=error_bar(score), **look.as_points)
        panel.axvline(0.0, color=INK, linewidth=0.8)
        panel.set_title(f"Brier-{n + 1}, %")
        name_lines(panel, names)
        panel.locator_params(axis="x", nbins=4)
        panel.margins(x=0.12)
    yield Sketch(
        "brier",
        "Brier-1 to 4 on held-out text",
        f"Per cent with {bars_are(line.summary.brier[0] for line, _ in shown)}; right is better. "
        f"{counting}"
        f"Shown: {listed(names)}.",
        figure,
    )
