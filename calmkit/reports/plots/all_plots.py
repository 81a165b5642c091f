"""All plots of a comparison, in the order of the page."""

from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Line
from calmkit.reports.plots.brier import draw_brier
from calmkit.reports.plots.differences import draw_differences
from calmkit.reports.plots.learning import draw_learning
from calmkit.reports.plots.losses import draw_losses
from calmkit.reports.plots.noise import draw_noise
from calmkit.reports.plots.quality import draw_quality
from calmkit.reports.plots.style import Draw, Plot, Sketch, looks, plain_style, rendered

__all__ = ["draw_plots", "sketches"]

_DRAWS: tuple[Draw, ...] = (
    draw_brier, draw_differences, draw_quality, draw_learning, draw_losses, draw_noise
)  # fmt: skip


def draw_plots(lines: Sequence[Line]) -> list[Plot]:
    """Draw every plot for which there are numbers.

    Args:
        lines: All variants; each has the same look in all plots.
    """
    with plain_style():
        return [rendered(sketch) for sketch in sketches(lines)]


def sketches(lines: Sequence[Line]) -> Iterator[Sketch]:
    """Draw all figures without rendering them; call it within `plain_style`."""
    styles = looks(len(lines))
    for draw in _DRAWS:
        yield from draw(lines, styles)
