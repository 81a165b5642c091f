r"""Variogram score: the distances between the dimensions of one draw.

    S(P, y) = sum_{i,j} w_ij (|y_i - y_j|^p - E|X_i - X_j|^p)^2,    X ~ P,  0 < p <= 1,

over all ordered pairs of dimensions, so that a pair i < j counts twice. Orientation: **lower is
better**. It judges correlations, which scores of marginals do not see and to which the energy
score is little sensitive.

It is proper where E|X_i - X_j|^2p is finite, because each term is the squared error of a mean. It
is not strictly proper: it sees one moment of each difference, hence neither a common shift of all
dimensions nor their common sign. Add it to a strictly proper rule.

The plain estimate, which squares a mean over samples, is too large by Var/m. The mean over pairs
of different samples s, t is unbiased:

    1/(m (m-1)) sum_{s != t} r_s r_t = ((sum_s r_s)^2 - sum_s r_s^2) / (m (m-1)),

with r_s = |x_si - x_sj|^p - a, for (E|X_i - X_j|^p - a)^2. It can be negative. For a Gaussian
outcome v_i - v_j is Gaussian with variance s_i^2 + s_j^2; then a = E|v_i - v_j|^p, and
Var |v_i - v_j|^p is added. For exponents 1 and 2 these moments are elementary.

Memory is O(samples * positions * latent^2 / 2), more than for any other rule. With many
dimensions, score a few positions at a time (`ChunkedScore`).

Source: Scheuerer and Hamill, "Variogram-based proper scoring rules for probabilistic forecasts of
multivariate quantities", Monthly Weather Review 2015, section 3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calmkit.bounds import check_in
from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import in_full_precision, smooth_norm
from calmkit.typing import typed

from .base import ScoringRule
from .checks import check_count, check_dimensions
from .crps import folded_normal_mean
from .energy import EnergyScore
from .moments import gaussian_norm_moment
from .vectors import Array, Vectors, checked_weights, like

__all__ = ["VariogramScore", "variogram_score"]


@typed
def variogram_score(
    samples: Float[Array, "samples *batch latent"],
    observation: Float[Array, "*batch latent"],
    *,
    p: float = 0.5,
    weights: Float[Array, "dimensions dimensions"] | None = None,
    mask: Bool[Array, "*batch latent"] | None = None,
    vector_axes: int = 1,
) -> Float[Array, "*scores"]:
    """Estimate the variogram score of an observation without bias.

        sum_{i,j} w_ij 1/(m (m-1)) sum_{s != t} r_sij r_tij

    with r_sij = |x_si - x_sj|^p - |y_i - y_j|^p.

    Args:
        samples: Independent draws from the prediction; at least two. Tensors or NumPy arrays.
        observation: The outcome y.
        p: Exponent in (0, 1]; 0.5 as the source recommends.
        weights: w_ij of two dimensions in the flattened vector, none negative, or the score is not
            proper; all one if None.
        mask: True where a value is observed; pairs with another are left out.
        vector_axes: Number of last axes that make up one vector.

    Raises:
        ValueError: If p is out of range, there are fewer than two samples or two dimensions, a
            observed value is not finite, or weights do not fit or are negative.
    """
    check_in("(0, 1]", p=p)
    given = Vectors.of(samples, observation, mask=mask, vector_axes=vector_axes)
    check_dimensions(2, samples=given.samples)
    found = in_full_precision(_of_pairs)(given.samples, given.observation, p)
    if given.mask is not None:
        upper, lower = _pairs(given.mask)
        found = found * (upper & lower)
    if weights is None:
        return like(samples, 2 * found.sum(dim=-1))
    both = checked_weights(weights, (given.observation.shape[-1],) * 2)
    both = (both + both.mT).to(found)
    return like(samples, found @ torch.cat([both.diagonal(k) for k in range(1, len(both))]))


def _of_pairs(samples: Tensor, observation: Tensor, p: float) -> Tensor:
    return _squared_error(samples, _power(_differences(observation), p), p)


@dataclass(frozen=True)
class VariogramScore(ScoringRule):
    """The variogram score with all weights one; its target terms are integrated.

    Relative to E|v_i - v_j|^2p they are as accurate as `gaussian_norm_moment`. They dominate the
    cost, with one or two integrals per pair of dimensions. At p = 1 there is no integral, and the
    rule is ten times faster.

    Attributes:
        p: Exponent in (0, 1].
    """

    p: float = 0.5

    strictly_proper = False

    def __post_init__(self) -> None:
        """Refuse exponents outside (0, 1]."""
        check_in("(0, 1]", p=self.p)

    @property
    def condition(self) -> str:
        """The moments that it sees."""
        return (
            f"sees E|X_i - X_j|^{self.p:g} of pairs of dimensions only, thus neither a common "
            "shift of all dimensions nor their common sign"
        )

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Squared error of the mean plus the target's own variance; see `ScoringRule.score_from`.

        Raises:
            ValueError: If there is only one dimension.
        """
        check_dimensions(2, samples=samples)
        mean = _differences(target.mean)
        # Not hypot, whose derivative at zero, for point masses, is NaN.
        std = smooth_norm(torch.stack(_pairs(target.std)), dim=0)
        first, second = (_absolute_moment(mean, std, power) for power in (self.p, 2 * self.p))
        error = _squared_error(samples, first, self.p)
        return 2 * (error + second - first.square()).sum(dim=-1)


def _squared_error(samples: Tensor, expected: Tensor, p: float) -> Tensor:
    """(E|X_i - X_j|^p - expected)^2 without bias, for each pair of dimensions."""
    check_count(samples)
    count = samples.shape[0]
    residual = _power(_differences(samples), p) - expected
    square_of_sum, sum_of_squares = residual.sum(dim=0).square(), residual.square().sum(dim=0)
    return (square_of_sum - sum_of_squares) / (count * (count - 1))


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """x_j and x_i for all pairs i < j of dimensions, in the order of j - i.

    Slices instead of an index: their backward pass is several times faster.
    """
    steps = range(1, x.shape[-1])
    upper = torch.cat([x[..., k:] for k in steps], dim=-1)
    return upper, torch.cat([x[..., :-k] for k in steps], dim=-1)


def _differences(x: Tensor) -> Tensor:
    upper, lower = _pairs(x)
    return upper - lower


def _power(difference: Tensor, p: float) -> Tensor:
    """|difference|^p, with the energy score's finite derivative at zero."""
    return EnergyScore(p).of_distance(difference.abs())


def _absolute_moment(mean: Tensor, std: Tensor, power: float) -> Tensor:
    """E|v|^power for v ~ N(mean, std^2), elementwise."""
    if power == 1.0:
        return folded_normal_mean(mean, std)
    if power == 2.0:
        return mean.square() + std.square()
    return gaussian_norm_moment(mean[..., None], std[..., None], alpha=power)
