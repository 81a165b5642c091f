"""How much noise on a latent the autoencoder bears, for each different autoencoder.

A head that errs by more than that cannot write right tokens, however good it is otherwise.
"""

from collections.abc import Iterator, Sequence

from calmkit.reports.lines import Line, listed
from calmkit.reports.plots.style import Look, Sketch, legend_below, panels

__all__ = ["draw_noise"]

_Curve = tuple[tuple[float, float], ...]


def draw_noise(lines: Sequence[Line], looks: Sequence[Look]) -> Iterator[Sketch]:
    """One curve for all variants with the same one, the mean over seeds."""
    groups: dict[_Curve, list[tuple[str, Look]]] = {}
    for line, look in zip(lines, looks, strict=True):
        if curve := _mean_curve(line):
            groups.setdefault(curve, []).append((line.name, look))
    if not groups:
        return
    figure, axes = panels([2.8])
    panel = axes[0, 0]
    ends = []
    for curve, variants in groups.items():
        names = listed([name for name, _ in variants], most=3)
        panel.plot(*zip(*curve, strict=True), label=names, **variants[0][1].as_curve)
        ends += [f"{names}: {curve[-1][1]:.0%} at {curve[-1][0]:g}"]
    panel.set_ylim(0, 1.03)
    panel.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    panel.set_xlabel("noise / spread of all latents")
    panel.set_ylabel("tokens restored")
    if len(groups) > 1:
        legend_below(figure, panel)
    yield Sketch(
        "noise",
        "Autoencoder under noise",
        f"Share of held-out tokens restored from a noisy latent. {'; '.join(ends)}.",
        figure,
    )


def _mean_curve(line: Line) -> _Curve:
    curves = [run.noise_curve for run in line.variant.runs if run.noise_curve]
    # Rounded, so that means over other numbers of seeds are still the same curve.
    return tuple(
        (points[0][0], round(sum(share for _, share in points) / len(points), 9))
        for points in zip(*curves, strict=False)
    )
