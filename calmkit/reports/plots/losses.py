"""Each variant's own loss on held-out text during training, on axes of its own.

Losses of different heads are different quantities: only a curve's shape can be compared.
"""

import math
from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Line, listed
from calmkit.reports.plots.style import Look, Sketch, panels, wrapped

__all__ = ["draw_losses"]


def draw_losses(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """A small panel for each variant, with a line for each seed."""
    found = []
    for line, look in zip(lines, looks, strict=True):
        curves = [
            run.validation_losses for run in line.variant.runs if len(run.validation_losses) > 1
        ]
        if curves:
            found.append((line, look, curves))
    if not found:
        return
    columns = min(2, len(found))
    heights = [1.7 if columns > 1 else 2.6] * math.ceil(len(found) / columns)
    figure, axes = panels(heights, columns=columns)
    for panel in axes.flat[len(found) :]:
        panel.set_axis_off()
    for panel, (line, look, curves) in zip(axes.flat, found, strict=False):
        for curve in curves:
            panel.plot(*zip(*curve, strict=True), color=look.color, linestyle=look.line)
        panel.set_title(wrapped(line.name))
        panel.locator_params(nbins=4)
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("own loss", fontsize=10)
    names = listed([line.name for line, _, _ in found])
    yield Sketch(
        "losses",
        "Own loss on held-out text",
        "Different quantities: shapes can be compared, heights cannot. "
        f"One line for each seed. Shown: {names}.",
        figure,
    )
