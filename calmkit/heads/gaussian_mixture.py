r"""Mixture of Gaussians with diagonal or low-rank plus diagonal covariances; exact densities.

    p(z) = sum_k pi_k N(z; mu_k, S_k),    S = diag(sigma^2) + U U^T,    U of r columns.

*Density.* With R = (z - mu) / sigma, V = U / sigma, the capacitance C = I + V^T V (r by r) and
w = C^-1 V^T R, the mean of the r factors given z,

    log |S| = 2 sum_i log sigma_i + log |C|,    (z - mu)^T S^-1 (z - mu) = |R - V w|^2 + |w|^2.

These are the matrix determinant lemma and Woodbury's identity; the cost is linear in the
dimension. The quadratic form is often written |R|^2 - |L^-1 V^T R|^2 with C = L L^T, a difference
of large numbers if the factors explain much. The sum of squares here has no such cancellation: w
minimises it, so that an error in w enters squared.

*Cross entropy.* For a target v ~ N(m, diag(s^2)), -E log p(v) has a closed form only for one
component. With the expected log-joints

    J_k = log pi_k + E log N(v; mu_k, S_k)
        = log pi_k + log N(m; mu_k, S_k) - 1/2 sum_i s_i^2 (S_k^-1)_ii

and q = softmax(J), it is exactly

    -E log p(v) = -log sum_k e^{J_k} - E KL(q || r(v)),    r_k(v) = pi_k N(v; mu_k, S_k) / p(v).

The first term is the variational upper bound with the optimal q. Only the second term is estimated
from draws of v. It vanishes for one component and for a point mass (s = 0). It is small if the
target is narrower than the components, or lies close to one of them. The estimate is unbiased, and
in these cases its variance is far below that of the mean of -log p over the same draws.

Source: Bishop, "Mixture Density Networks", 1994; for the bound, Bishop, "Pattern Recognition and
Machine Learning", 2006, section 9.4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import in_full_precision
from calmkit.typing import typed

__all__ = ["GaussianMixture"]


@typed
@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A finite mixture of Gaussians over vectors.

    Attributes:
        log_weights: log pi_k, finite; the weights sum to one.
        mean: mu_k.
        std: sigma_k, positive: standard deviations not explained by the factors.
        factor: U_k; it has no columns (rank 0) for diagonal covariances.
    """

    log_weights: Float[Tensor, "*batch components"]
    mean: Float[Tensor, "*batch components latent"]
    std: Float[Tensor, "*batch components latent"]
    factor: Float[Tensor, "*batch components latent rank"]

    @property
    def noise_size(self) -> int:
        """Normal numbers per sample: one for each dimension and each factor."""
        return self.factor.shape[-2] + self.factor.shape[-1]

    @typed
    def log_prob(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
        """Log-density in nats, log sum_k pi_k N(z; mu_k, S_k).

        Args:
            latents: One vector z per position.
        """
        return _log_prob(self.log_weights, self.mean, self.std, self.factor, latents)

    @typed
    def cross_entropy(
        self, target: DiagonalGaussian, noise: Float[Tensor, "draws *batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Unbiased estimate of -E log p(v), v ~ target, in nats, by the formula of the module.

        Args:
            target: Distribution of v; a point mass is allowed.
            noise: Standard normal draws; not used for one component.
        """
        parameters = (self.log_weights, self.mean, self.std, self.factor)
        return _cross_entropy(*parameters, target.mean, target.std, noise)

    @typed
    def sample_from(
        self, uniform: Float[Tensor, "samples *batch"], noise: Float[Tensor, "samples *batch size"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """`mu_k + sigma_k e + U_k e'` for the k that `uniform` selects.

        Args:
            uniform: Draws from [0, 1); k is the first with pi_1 + ... + pi_k above it.
            noise: Standard normal draws (e, e'), `noise_size` per sample.
        """
        parameters = (self.log_weights, self.mean, self.std, self.factor)
        return _sample_from(*parameters, uniform, noise).to(noise.dtype)


# These functions take only tensors: all are converted to one precision and share their batch axes.
@typed
@in_full_precision
def _log_prob(
    log_weights: Float[Tensor, "*batch components"],
    mean: Float[Tensor, "*batch components latent"],
    std: Float[Tensor, "*batch components latent"],
    factor: Float[Tensor, "*batch components latent rank"],
    latents: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    scaled, cholesky = _capacitance(std, factor)
    density = _component_log_prob(mean, std, scaled, cholesky, latents[..., None, :])
    return (log_weights + density[..., 0]).logsumexp(dim=-1)


@typed
@in_full_precision
def _cross_entropy(
    log_weights: Float[Tensor, "*batch components"],
    mean: Float[Tensor, "*batch components latent"],
    std: Float[Tensor, "*batch components latent"],
    factor: Float[Tensor, "*batch components latent rank"],
    target_mean: Float[Tensor, "*batch latent"],
    target_std: Float[Tensor, "*batch latent"],
    noise: Float[Tensor, "draws *batch latent"],
) -> Float[Tensor, "*batch"]:
    scaled, cholesky = _capacitance(std, factor)
    points = target_mean[..., None, :]
    single = mean.shape[-2] == 1  # nothing to estimate then
    if not single:
        draws = torch.addcmul(target_mean, target_std, noise).movedim(0, -2)
        points = torch.cat([points, draws], dim=-2)
    joint = log_weights[..., None] + _component_log_prob(mean, std, scaled, cholesky, points)

    precision = _precision_diagonal(std, scaled, cholesky)
    trace = (precision * target_std.square()[..., None, :]).sum(dim=-1)
    expected = joint[..., 0] - 0.5 * trace
    bound = -expected.logsumexp(dim=-1)
    if single:
        return bound
    log_q = expected.log_softmax(dim=-1)[..., None]
    divergence = (log_q.exp() * (log_q - joint[..., 1:].log_softmax(dim=-2))).sum(dim=-2)
    return bound - divergence.mean(dim=-1)


@typed
@in_full_precision
def _sample_from(
    log_weights: Float[Tensor, "*batch components"],
    mean: Float[Tensor, "*batch components latent"],
    std: Float[Tensor, "*batch components latent"],
    factor: Float[Tensor, "*batch components latent rank"],
    uniform: Float[Tensor, "samples *batch"],
    noise: Float[Tensor, "samples *batch size"],
) -> Float[Tensor, "samples *batch latent"]:
    # Without the last sum, which is 1 only up to rounding, k cannot exceed its range.
    upper = log_weights.exp().cumsum(dim=-1)[..., :-1]
    chosen = (uniform[..., None] >= upper).sum(dim=-1)[..., None, None]
    own, shared = noise.split([factor.shape[-2], factor.shape[-1]], dim=-1)
    location = mean[None].take_along_dim(chosen, dim=-2).squeeze(-2)
    scale = std[None].take_along_dim(chosen, dim=-2).squeeze(-2)
    samples = torch.addcmul(location, scale, own)
    if factor.shape[-1] == 0:
        return samples
    loading = factor[None].take_along_dim(chosen[..., None], dim=-3).squeeze(-3)
    return samples + (loading @ shared[..., None]).squeeze(-1)


def _capacitance(std: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """V = U / sigma, and the Cholesky factor of I + V^T V."""
    scaled = factor / std[..., None]
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    # The plain `cholesky` would synchronise with the device to check for failure.
    return scaled, torch.linalg.cholesky_ex(identity + scaled.mT @ scaled).L


def _component_log_prob(
    mean: Tensor, std: Tensor, scaled: Tensor, cholesky: Tensor, points: Tensor
) -> Tensor:
    """(*batch, components, points): log N(z; mu_k, S_k) of points (*batch, points, latent)."""
    residual = (points[..., None, :, :] - mean[..., None, :]) / std[..., None, :]
    constant = std.log().sum(dim=-1) + 0.5 * math.log(2 * math.pi) * std.shape[-1]
    if scaled.shape[-1] == 0:
        return -0.5 * residual.square().sum(dim=-1) - constant[..., None]
    factors = torch.cholesky_solve((residual @ scaled).mT, cholesky).mT
    residual = residual - factors @ scaled.mT
    square = residual.square().sum(dim=-1) + factors.square().sum(dim=-1)
    constant = constant + cholesky.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return -0.5 * square - constant[..., None]


def _precision_diagonal(std: Tensor, scaled: Tensor, cholesky: Tensor) -> Tensor:
    """(S_k^-1)_ii = (1 - |L^-1 V_i|^2) / sigma_i^2, with V_i the i-th row of V."""
    if scaled.shape[-1] == 0:
        return std.square().reciprocal()
    explained = torch.linalg.solve_triangular(cholesky, scaled.mT, upper=False)
    return (1 - explained.square().sum(dim=-2)) / std.square()
