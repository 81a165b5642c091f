"""The style of all plots: consistent, distinguishable in greyscale, and reproducible to the byte.

Okabe and Ito's colours are distinct for colour-blind readers; the yellow one is omitted, since it
is faint on white. Markers and line styles vary with different periods, so that many variants have
distinct looks. A plot is as wide as one column of the page, so that it is legible on a phone.
"""

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calmkit.metrics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from calmkit.reports.lines import Line

__all__ = [
    "INK", "MUTED", "Draw", "Look", "Plot", "Sketch", "bars_are", "error_bar", "height_of_lines",
    "legend_below", "log_axis", "looks", "name_lines", "panels", "plain_style", "rendered",
    "wrapped",
]  # fmt: skip

INK = "#1f2328"
MUTED = "#6e7781"
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_LINES: tuple[Any, ...] = ("-", "--", (0, (1, 1)), "-.", (0, (6, 1, 1, 1, 1, 1)))
_WIDTH, _DPI = 4.5, 200
_NAME_LENGTH = 22
_LEGEND_LINE = 0.19  # inches
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "errorbar.capsize": 3,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    # Text as outlines does not depend on the installed fonts.
    "svg.fonttype": "path",
    "svg.hashsalt": "calmkit",
}


@dataclass(frozen=True)
class Look:
    """The style of one variant."""

    color: str
    marker: str
    line: Any

    @property
    def as_points(self) -> dict[str, Any]:
        """Style of separate points with error bars."""
        return {"color": self.color, "marker": self.marker, "linestyle": "none"}

    @property
    def as_curve(self) -> dict[str, Any]:
        """Style of a curve with small markers."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.line,
            "markersize": 4,
        }


@dataclass(frozen=True)
class Sketch:
    """A figure, with a text description for readers who cannot see it."""

    name: str
    title: str
    about: str
    figure: "Figure"


@dataclass(frozen=True)
class Plot:
    """A rendered plot.

    Attributes:
        name: Name of its files, without the extension.
        title: A short title.
        about: A description, and how to read the plot.
        png: PNG on a white background.
        svg: SVG on a white background.
        size: Width and height in CSS pixels.
    """

    name: str
    title: str
    about: str
    png: bytes
    svg: bytes
    size: tuple[int, int]


Draw = Callable[[Sequence["Line"], Sequence[Look]], Iterator[Sketch]]


def looks(count: int) -> list[Look]:
    """A look for each variant; the first 385 are pairwise different."""
    return [
        Look(_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)])
        for i in range(count)
    ]


@contextmanager
def plain_style() -> Iterator[None]:
    """Use a fixed style instead of the user's matplotlibrc."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def panels(heights: Sequence[float], *, columns: int = 1, **shared: Any) -> tuple["Figure", Any]:
    """A figure with rows of panels, given their heights in inches; axes are (rows, columns)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(
        len(heights), columns, squeeze=False, height_ratios=list(heights), **shared
    )
    return figure, axes


def rendered(sketch: Sketch) -> Plot:
    """Render as PNG and SVG, without dates."""
    # Compute the layout once, not once per format.
    sketch.figure.draw_without_rendering()
    sketch.figure.set_layout_engine(None)
    png, svg = io.BytesIO(), io.BytesIO()
    sketch.figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    sketch.figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    width, height = sketch.figure.get_size_inches()
    size = round(96 * width), round(96 * height)
    return Plot(sketch.name, sketch.title, sketch.about, png.getvalue(), svg.getvalue(), size)


def error_bar(estimate: Estimate) -> list[list[float]] | None:
    """Lengths of the 95 % interval below and above the value, or else one standard error."""
    if estimate.interval is None:
        error = estimate.standard_error
        return None if error is None else [[error]] * 2
    low, high = estimate.interval
    return [[max(0.0, estimate.value - low)], [max(0.0, high - estimate.value)]]


def bars_are(estimates: Iterable[Estimate | None]) -> str:
    """The meaning of the error bars, for the description of a plot."""
    without = [one.interval is None for one in estimates if one is not None]
    if not any(without):
        return "95 % intervals"
    if all(without):
        return "bars of one standard error"
    return "95 % intervals, or bars of one standard error if there are too few documents"


def legend_below(figure: "Figure", axes: "Axes") -> None:
    """Add a legend below all panels and enlarge the figure for it; baselines come last."""
    pairs = zip(*axes.get_legend_handles_labels(), strict=True)
    handles, labels = zip(*sorted(pairs, key=lambda pair: pair[1].endswith("gram")), strict=True)
    labels = [wrapped(label) for label in labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = min(3 if longest <= 12 else 2, len(labels))
    lines = max(
        sum(label.count("\n") + 1 for label in column)
        for column in (labels[i::columns] for i in range(columns))
    )
    figure.set_figheight(figure.get_figheight() + 0.1 + _LEGEND_LINE * lines)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def log_axis(axes: "Axes", values: Sequence[float]) -> bool:
    """Make the x-axis logarithmic if its values span a factor of ten; return whether it is."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if min(values) <= 0 or max(values) < 10 * min(values):
        return False
    axes.set_xscale("log")
    if max(values) < 100 * min(values):
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}".replace("e+", "e"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    return True


def wrapped(name: str) -> str:
    """Wrap a long name."""
    return "\n".join(textwrap.wrap(name, _NAME_LENGTH))


def name_lines(axes: "Axes", names: Sequence[str]) -> None:
    """Label the y-axis with the variants' names from top to bottom."""
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def height_of_lines(names: Sequence[str]) -> float:
    """Height in inches of a panel with `name_lines` and an axis below."""
    lines = max(wrapped(name).count("\n") + 1 for name in names)
    return max(1.4, 0.8 + len(names) * (0.12 + 0.16 * lines))
