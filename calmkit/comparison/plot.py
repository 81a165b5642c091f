"""A comparison as one picture.

First row: the signed Brier-n of each head with two standard errors, each n on its own scale
(they differ by orders of magnitude), beside the unigram baseline. Then the validation loss of
each head on axes of its own: losses of different heads are different quantities. Last: quality
against the time of a generated token.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from .results import ComparisonResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = ["write_plot"]

# Okabe and Ito's colours: distinct for colour-blind readers too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_COLUMNS = 4
_STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


def write_plot(result: ComparisonResult, path: Path) -> None:
    """Draw a result as a PNG.

    Args:
        result: What to draw.
        path: The file.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    loss_rows = math.ceil(len(result.heads) / _COLUMNS)
    heights = [3.2, 2.7 * loss_rows, 3.2]
    # The user's matplotlibrc may be dark; a result looks the same everywhere.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(12, sum(heights)), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(3, 1, squeeze=False, height_ratios=heights)
        top, middle, bottom = parts[:, 0]
        colors = {
            head.name: _COLORS[index % len(_COLORS)] for index, head in enumerate(result.heads)
        }
        _draw_brier(top, result, colors)
        _draw_losses(middle, result, colors, rows=loss_rows)
        _draw_speed(bottom, result, colors)
        figure.savefig(path, dpi=130)


def _draw_brier(
    figure: "Figure | SubFigure", result: ComparisonResult, colors: dict[str, str]
) -> None:
    figure.suptitle(
        f"Brier-n on held-out text ({result.corpus_name}, seed {result.seed}), "
        "± 2 standard errors; higher is better"
    )
    for index, axes in enumerate(figure.subplots(1, 4)):
        for place, head in enumerate(result.heads):
            _errorbar(axes, place, head.brier[index].value, head.brier[index].standard_error,
                      colors[head.name])  # fmt: skip
        baseline = result.unigram_brier[index].value
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.axhline(baseline, color="#555555", linestyle="--", linewidth=1.2, label="unigram")
        axes.set_title(f"Brier-{index + 1}")
        axes.set_ylabel("per cent" if index == 0 else "")
        names = [head.name for head in result.heads]
        crowded = len(names) > 4 or max(map(len, names)) > 9
        axes.set_xticks(range(len(names)), names, rotation=30 if crowded else 0,
                        ha="right" if crowded else "center")  # fmt: skip
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.margins(y=0.15)
        axes.grid(axis="x", visible=False)
        if index == 0:
            axes.legend(frameon=False, loc="best")


def _draw_losses(
    figure: "Figure | SubFigure", result: ComparisonResult, colors: dict[str, str], *, rows: int
) -> None:
    figure.suptitle("Validation loss of each head (its own loss: not comparable between heads)")
    columns = min(_COLUMNS, len(result.heads))
    every = figure.subplots(rows, columns, squeeze=False).flat
    for axes in every[len(result.heads) :]:
        axes.set_axis_off()
    for index, (axes, head) in enumerate(zip(every, result.heads, strict=False)):
        steps = [step for step, _ in head.validation_losses]
        losses = [loss for _, loss in head.validation_losses]
        axes.plot(steps, losses, color=colors[head.name], marker="o", markersize=3.5)
        axes.set_title(head.name)
        axes.set_xlabel("training step")
        axes.set_ylabel("loss" if index % columns == 0 else "")


def _draw_speed(
    figure: "Figure | SubFigure", result: ComparisonResult, colors: dict[str, str]
) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    figure.suptitle("Quality against speed: up and to the left is better")
    axes = figure.subplots(1, 1)
    for head in result.heads:
        score = head.brier[0]
        _errorbar(axes, head.microseconds_per_token, score.value, score.standard_error,
                  colors[head.name], label=head.name)  # fmt: skip
    axes.axhline(
        result.unigram_brier[0].value,
        color="#555555", linestyle="--", linewidth=1.2, label="unigram",
    )  # fmt: skip
    if any(math.isfinite(head.microseconds_per_token) for head in result.heads):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.15, y=0.2)
    axes.set_xlabel("microseconds per generated token (log scale)")
    axes.set_ylabel("Brier-1, per cent")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _errorbar(
    axes: "Axes", place: float, value: float, error: float, color: str, label: str | None = None
) -> None:
    axes.errorbar(
        [place], [value], yerr=[2 * error], color=color, label=label,
        marker="o", markersize=7, capsize=5, linewidth=1.8, linestyle="none",
    )  # fmt: skip
