"""Each variant's own loss on held-out text during training, on axes of its own.

Losses of different heads are different quantities: only a curve's shape can be compared.
"""

import math
from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Row, listed
from calmkit.reports.plots.style import Look, Sketch, panels, wrapped

__all__ = ["draw_losses"]


def draw_losses(rows: Sequence[Row], looks: Sequence[Look]) -> Iterator[Sketch]:
    """A small panel for each variant, with a line for each seed."""
    found = []
    for row, look in zip(rows, looks, strict=True):
        curves = [
            [(step, loss) for step, loss in run.validation_losses if math.isfinite(loss)]
            for run in row.variant.runs
        ]
        if curves := [curve for curve in curves if len(curve) > 1]:
            found.append((row, look, curves))
    if not found:
        return
    columns = min(2, len(found))
    lines = math.ceil(len(found) / columns)
    figure, axes = panels([1.7 if columns > 1 else 2.6] * lines, columns=columns)
    for panel in axes.flat[len(found) :]:
        panel.set_axis_off()
    for panel, (row, look, curves) in zip(axes.flat, found, strict=False):
        for curve in curves:
            panel.plot(*zip(*curve, strict=True), color=look.color, linestyle=look.line)
        panel.set_title(wrapped(row.name))
        panel.locator_params(nbins=4)
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("own loss", fontsize=10)
    names = listed([row.name for row, _, _ in found])
    yield Sketch(
        "losses",
        "Own loss on held-out text",
        "Different quantities: shapes can be compared, heights cannot. "
        f"One line for each seed. Shown: {names}.",
        figure,
    )
