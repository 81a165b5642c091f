r"""Confidence intervals of ratios over documents: the jackknife and Student's t.

Leave out each document g in turn and recompute the estimate, e_(-g). With G documents,

    v = (G - 1) / G sum_g (e_(-g) - e)^2

estimates its variance, and the interval is e +- t sqrt(v), where t is the quantile of Student's t.
With w_g the share of all tokens that are in document g, the degrees of freedom are

    1 / sum_g w_g^2 - 1,    at least 1,

which is G - 1 for documents of equal length, and less where a few long ones outweigh the rest. The
interval is valid even for two documents, if wide: t is then 12.7, while the percentiles of a
bootstrap reach to a tenth of that. `benchmarks/interval_coverage.py` measures the coverage of this
and other intervals; `docs/metrics.md` reports it.

The sum of two variances, such as those of documents and of seeds, has the degrees of freedom of
Welch and Satterthwaite: (v_1 + v_2)^2 / (v_1^2 / d_1 + v_2^2 / d_2).

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 11; Kish, "Survey
Sampling", 1965; Satterthwaite, "An approximate distribution of estimates of variance components",
1946.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_in
from calmkit.typing import typed

__all__ = ["Variance", "jackknife", "ratios_without_each", "student_quantile"]

Interval = tuple[float, float]

_NODES, _WEIGHTS = map(torch.from_numpy, np.polynomial.legendre.leggauss(128))
# Beyond this many standard deviations of the angle the density is zero in float64.
_FARTHEST = 40.0
_MOST_STEPS = 60


@typed
@dataclass(frozen=True, eq=False)
class Variance:
    """Estimated variances and their degrees of freedom.

    Attributes:
        amount: The variances; NaN where none can be estimated.
        degrees: Degrees of freedom, at least 1.
    """

    amount: Float[Tensor, " metrics"]
    degrees: Float[Tensor, " metrics"]

    def __add__(self, other: "Variance") -> "Variance":
        """The variance of a sum of independent parts (module docstring)."""
        amount = self.amount + other.amount
        uncertainty = self.amount.square() / self.degrees + other.amount.square() / other.degrees
        fewest = torch.minimum(self.degrees, other.degrees)
        degrees = torch.where(uncertainty > 0, amount.square() / uncertainty, fewest)
        return Variance(amount, degrees.clamp_min(1.0))

    def scaled(self, factor: float) -> "Variance":
        """The variance after multiplying the numbers themselves by the factor."""
        return Variance(factor**2 * self.amount, self.degrees)

    def intervals(
        self, centers: Float[Tensor, " metrics"], level: float = 0.95
    ) -> list[Interval | None]:
        """One interval around each center; None where there is no variance.

        Args:
            centers: The estimates.
            level: Nominal coverage of the intervals.

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        half = student_quantile(level, self.degrees) * self.amount.sqrt()
        return [
            (center - reach, center + reach) if math.isfinite(reach) else None
            for center, reach in zip(centers.tolist(), half.tolist(), strict=True)
        ]


@typed
def ratios_without_each(
    sums: Float[Tensor, "groups metrics"], counts: Float[Tensor, "groups metrics"]
) -> Float[Tensor, "groups metrics"]:
    """Each metric's mean per token without each group; NaN where no other group has its tokens.

    Args:
        sums: Sum of each metric over the tokens of each group.
        counts: Number of tokens in each sum.
    """
    left = counts.sum(dim=0) - counts
    # Rounding may leave a difference of sums slightly off zero, so groups are counted.
    alone = (counts > 0).sum(dim=0) - (counts > 0).long() < 1
    ratios = (sums.sum(dim=0) - sums) / torch.where(alone, math.nan, left)
    whole = sums.sum(dim=0) / counts.sum(dim=0)
    return torch.where(counts > 0, ratios, whole)  # leaving out an empty group changes nothing


@typed
def jackknife(
    values: Float[Tensor, " metrics"],
    without_each: Float[Tensor, "groups metrics"],
    shares: Float[Tensor, "groups metrics"],
) -> Variance:
    """Variances of estimates, by leaving out each group in turn (module docstring).

    Args:
        values: The estimates.
        without_each: The estimates without each group.
        shares: Share of the tokens in each group; the shares of a metric sum to 1.
    """
    groups = (shares > 0).sum(dim=0)
    squares = (without_each - values).square().sum(dim=0)
    amount = torch.where(groups > 1, squares * (groups - 1) / groups, math.nan)
    return Variance(amount, (1 / shares.square().sum(dim=0) - 1).nan_to_num(1.0).clamp_min(1.0))


@typed
def student_quantile(
    level: float, degrees: Float[Tensor, " metrics"]
) -> Float[Tensor, " metrics"]:
    r"""The t with P(-t < T < t) = level, for T with Student's t distribution; in float64.

    With T = sqrt(d) tan(a), the probability is that of an angle,

        P(|T| < sqrt(d) tan(a)) = c \int_{-a}^{a} cos(x)^(d-1) dx,
        c = Gamma((d + 1) / 2) / (sqrt(pi) Gamma(d / 2)),

    computed by Gauss-Legendre quadrature. It grows with the angle a, ever more slowly, so that
    Newton's method from a = 0 comes closer to its root from below with every step.

    Args:
        level: In (0, 1).
        degrees: Degrees of freedom d, at least 1.

    Raises:
        ValueError: If the level is not in (0, 1).
    """
    check_in("(0, 1)", level=level)
    d = degrees.double()
    log_c = torch.lgamma((d + 1) / 2) - torch.lgamma(d / 2) - 0.5 * math.log(math.pi)
    angle, highest = torch.zeros_like(d), (_FARTHEST / d.sqrt()).clamp_max(math.pi / 2)
    nodes, weights = _NODES.to(d.device), _WEIGHTS.to(d.device)

    def density(angles: Tensor) -> Tensor:
        return (log_c[:, None] + (d[:, None] - 1) * angles.cos().log()).exp()

    for _ in range(_MOST_STEPS):
        within = angle * (density(angle[:, None] * (nodes + 1) / 2) @ weights)
        slope = 2 * density(angle[:, None])[:, 0]
        before, angle = angle, torch.minimum(angle + (level - within) / slope, highest)
        if bool((angle <= before).all()):  # further steps are rounding
            break
    return d.sqrt() * angle.tan()
