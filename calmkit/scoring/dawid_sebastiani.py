r"""Dawid-Sebastiani score: mean and variance of each dimension, nothing else.

    S(P, y) = sum_i log sigma_i^2 + (y_i - mu_i)^2 / sigma_i^2,    mu = E X,  sigma_i^2 = Var X_i.

Orientation: **lower is better**. S is twice the logarithmic score of the Gaussian with the same
means and variances, less l log(2 pi). It is proper where variances are finite, but not strictly:
distributions of equal means and variances score alike, whatever their shape and correlations. (The
form with a full covariance matrix needs more samples than dimensions.)

S is not a polynomial in P, so **no estimate from samples is unbiased for all P**. With the mean
x_ and variance s^2 (divisor m - 1) of m samples, log s^2 is too small on average, (y - x_)^2 / s^2
too large. If P has Gaussian marginals, then x_ ~ N(mu, sigma^2/m) is independent of
s^2 ~ sigma^2 chi^2_{m-1} / (m-1). With k = m - 1,

    E log s^2 = log sigma^2 + psi(k/2) - log(k/2),    E 1/s^2 = k/(k-2) / sigma^2,
    E (y - x_)^2 / s^2 = (m-1)/(m-3) ((y - mu)^2 / sigma^2 + 1/m),

hence from m >= 4 samples, in each dimension,

    log s^2 - psi((m-1)/2) + log((m-1)/2) + (m-3)/(m-1) (y - x_)^2 / s^2 - 1/m

is unbiased for such P. For others a bias of order 1/m remains, which matters with few samples:
if the true distribution is Gaussian, uniform marginals of the same variance score better on
average than the true ones. A sampler that is free to choose its shape can exploit that.

Sources: Dawid and Sebastiani, "Coherent dispersion criteria for optimal experimental design",
Annals of Statistics 1999; Siegert, Ferro, Stephenson and Leutbecher, "The ensemble-adjusted
Ignorance Score for forecasts issued as normal distributions", QJRMS 2019, arXiv 1410.8249 (the
corrections).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import in_full_precision
from calmkit.typing import typed

from .base import ScoringRule
from .checks import check_count
from .vectors import Array, Vectors, like

__all__ = ["DawidSebastianiScore", "dawid_sebastiani_score"]

_LEAST = 4  # with fewer samples E 1/s^2 is infinite


@typed
def dawid_sebastiani_score(
    samples: Float[Array, "samples *batch latent"],
    observation: Float[Array, "*batch latent"],
    *,
    weights: Float[Array, "*vector"] | None = None,
    mask: Bool[Array, "*batch latent"] | None = None,
    vector_axes: int = 1,
) -> Float[Array, "*scores"]:
    """Estimate the Dawid-Sebastiani score, without bias if the prediction has Gaussian marginals.

        sum_i log s_i^2 - psi((m-1)/2) + log((m-1)/2) + (m-3)/(m-1) (y_i - x_i)^2 / s_i^2 - 1/m

    with mean x_i and variance s_i^2 of the samples. Where samples are almost tied, s_i is taken as
    eps times the largest distance of a sample from y_i. The score is then finite, and very bad.

    Args:
        samples: Independent draws from the prediction; at least four. Tensors or NumPy arrays.
        observation: The outcome y.
        weights: Weights of the terms of the sum.
        mask: True where a value is observed; the others are left out.
        vector_axes: Number of last axes that make up one vector.

    Raises:
        ValueError: If fewer than four samples are given, weights do not fit or are negative, or an
            observed value is not finite.
    """
    given = Vectors.of(samples, observation, weights=weights, mask=mask, vector_axes=vector_axes)
    target = DiagonalGaussian.point_mass(given.observation)
    return like(samples, given.total(in_full_precision(_of_dimensions)(given.samples, target)))


@dataclass(frozen=True)
class DawidSebastianiScore(ScoringRule):
    """The Dawid-Sebastiani score of samples, with its target term integrated exactly."""

    proper = False
    strictly_proper = False
    condition = (
        "not proper for all predictions, but among those with Gaussian margins, for which "
        "its estimate is unbiased; sees mean and variance of each dimension only"
    )
    min_samples = _LEAST

    @typed
    def score_from(
        self,
        samples: Float[Tensor, "samples *batch latent"],
        target: DiagonalGaussian,
        noise: Float[Tensor, "noise *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Uses E (v - x_)^2 = (mu - x_)^2 + std^2; see `ScoringRule.score_from`.

        Unbiased for predictions with Gaussian marginals.

        Raises:
            ValueError: If fewer than four samples are given, or samples have no dimensions.
        """
        return _of_dimensions(samples, target).sum(dim=-1)


def _of_dimensions(samples: Tensor, target: DiagonalGaussian) -> Tensor:
    """The score of each dimension."""
    check_count(samples, _LEAST)
    count = samples.shape[0]
    offset = samples - target.mean
    # At unit scale neither a square nor its derivative overflows or vanishes.
    unit = offset.detach().abs().amax(dim=0).maximum(target.std.detach())
    limits = torch.finfo(unit.dtype)
    unit = unit.clamp_min(limits.tiny**0.5)
    offset = offset / unit
    mean = offset.mean(dim=0)
    variance = (offset - mean).square().sum(dim=0) / (count - 1)
    variance = variance.clamp_min(limits.eps**2)
    error = (mean.square() + (target.std / unit).square()) / variance
    half = torch.full((), (count - 1) / 2, dtype=unit.dtype, device=unit.device)
    correction = half.log() - half.digamma() - 1 / count
    return variance.log() + 2 * unit.log() + (count - 3) / (count - 1) * error + correction
