"""The files of a diagnosis: text, JSON and a plot.

The first row of the plot shows the autoencoder under noise, the KL of each latent dimension, and
the spread of samples. The second row shows latents of text and of the head in the plane, by
principal components and by t-SNE. A difference between the two clouds means that the head draws
latents that do not occur in text, or misses some that do.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.diagnostics import Diagnosis, LatentPlaces
from calmkit.files import replacing
from calmkit.reports.plots.style import plain_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_diagnosis"]

# Okabe and Ito's blue and vermilion.
_REAL, _DRAWN = "#0072B2", "#D55E00"


def write_diagnosis(diagnosis: Diagnosis, directory: Path) -> list[Path]:
    """Write `diagnostics.txt`, `diagnostics.json` and `diagnostics.png`.

    Args:
        diagnosis: The diagnosis.
        directory: Folder, created if missing; existing files are replaced.

    Returns:
        The files.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / f"diagnostics.{ending}" for ending in ("txt", "json", "png")]
    with replacing(*files) as (text, numbers, picture):
        text.write_text(diagnosis.to_text(), encoding="utf-8")
        numbers.write_text(diagnosis.to_json() + "\n", encoding="utf-8")
        _draw(diagnosis, picture)
    return files


def _draw(diagnosis: Diagnosis, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with plain_style():
        figure = Figure(figsize=(12, 8.5), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.4, 5])
        upper, lower = parts[:, 0]
        curve, use, widths = upper.subplots(1, 3)
        _draw_curve(curve, diagnosis)
        _draw_use(use, diagnosis)
        _draw_widths(widths, diagnosis)
        principal, tsne = lower.subplots(1, 2)
        _draw_map(principal, diagnosis.principal, "Latents, principal components")
        _draw_map(tsne, diagnosis.tsne, "Latents, t-SNE (distances mean nothing)")
        figure.savefig(path, dpi=110)


def _draw_curve(axes: "Axes", diagnosis: Diagnosis) -> None:
    noise = diagnosis.noise
    axes.plot(noise.sizes, noise.accuracy, color=_REAL, marker="o", markersize=4)
    axes.axvline(noise.posterior_size, color="#555555", linestyle="--", linewidth=1.2,
                 label="the posterior's own noise")  # fmt: skip
    axes.set_ylim(0, 1.03)
    axes.set_title("Autoencoder under noise")
    axes.set_xlabel("noise / spread of all latents")
    axes.set_ylabel("tokens restored")
    axes.legend(loc="lower left")


def _draw_use(axes: "Axes", diagnosis: Diagnosis) -> None:
    """KL of each dimension; a point mass has an infinite KL and gets no bar."""
    use = diagnosis.latents
    order = sorted(range(len(use.kl)), key=lambda i: -use.kl[i])
    heights = [use.kl[i] if math.isfinite(use.kl[i]) else 0.0 for i in order]
    colors = [_REAL if use.is_active[i] else _DRAWN for i in order]
    axes.bar(range(len(order)), heights, color=colors)
    axes.set_title(f"{use.active} of {len(use.kl)} dimensions active (blue)")
    axes.set_xlabel("latent dimension, sorted")
    axes.set_ylabel("KL to the prior, nats")
    axes.grid(axis="x", visible=False)


def _draw_widths(axes: "Axes", diagnosis: Diagnosis) -> None:
    spread = diagnosis.spread
    names = ("posterior", "head", "error", "marginal")
    values = (spread.posterior, spread.head, spread.error, spread.marginal)
    axes.bar(names, values, color=(_REAL, _DRAWN, "#999999", _REAL))
    axes.set_title("Spread: head and error should agree")
    axes.set_ylabel("units of the latents")
    axes.grid(axis="x", visible=False)


def _draw_map(axes: "Axes", places: LatentPlaces | None, title: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    if places is None:
        axes.text(0.5, 0.5, "pip install 'calmkit[diagnostics]'", ha="center", va="center")
        return
    for name, points, color in (
        ("text (posterior draws)", places.real, _REAL), ("head", places.drawn, _DRAWN)
    ):  # fmt: skip
        x, y = points.cpu().numpy().T
        axes.scatter(x, y, s=7, color=color, alpha=0.5, linewidths=0, label=name)
    axes.legend(loc="best", markerscale=2)
