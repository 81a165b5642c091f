r"""Gaussian head: one Gaussian with independent dimensions, by maximum likelihood.

    p(z | h) = N(z; mu, diag(sigma^2)),    (mu, r) = network(h),    sigma = floor + log(1 + e^r).

The loss is the expected negative log-density under the target N(m, diag(s^2)), in closed form

    1/2 sum_i [ ((m_i - mu_i)^2 + s_i^2) / sigma_i^2 + log sigma_i^2 + log 2 pi ],

in nats. For fixed sigma this is the squared error of mu over 2 sigma^2, plus a constant: a
regression head, whose negative log-density is a quadratic energy.

This head is a baseline with one mode and independent dimensions. It learns only means and
variances; if the latents form two clusters, it also samples between them. `MixtureHead` has
several modes and correlations.

On point masses the likelihood is unbounded: sigma shrinks towards 0 where the network predicts the
outcomes well. The floor bounds it.

Source: Nix and Weigend, "Estimating the mean and variance of the target probability
distribution", 1994.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from calmkit.distributions import DiagonalGaussian, Target
from calmkit.nn import ResidualMLP
from calmkit.typing import typed

from .base import NoiseHead

__all__ = ["GaussianHead", "gaussian_cross_entropy", "initial_std", "positive_std"]


class GaussianHead(NoiseHead):
    """Regression of the mean and, unless it is fixed, the standard deviation."""

    evaluations_per_sample = 1

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        width: int = 512,
        depth: int = 3,
        std: float | None = None,
        min_std: float = 0.01,
    ) -> None:
        """Build the network; its initial prediction is N(0, I) for each condition.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            width: Features inside.
            depth: Number of residual blocks.
            std: Standard deviation of all dimensions; None to learn it per dimension as a function
                of the condition.
            min_std: Floor of a learned standard deviation, for latents of unit variance.

        Raises:
            ValueError: If a size or a standard deviation is out of range.
        """
        super().__init__(cond_size, latent_size)
        if std is not None and not 0 < std < math.inf:
            raise ValueError(f"std must be positive and finite, or None to learn it; got {std}.")
        check_min_std(min_std)
        self.std = std
        self.min_std = min_std
        outputs = latent_size if std is not None else 2 * latent_size
        self.network = ResidualMLP(cond_size, outputs, width=width, depth=depth)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise to mean 0 and, if it is learned, standard deviation 1."""
        self.network.reset_parameters()
        output = self.network.output
        nn.init.zeros_(output.weight)
        if self.std is None:
            unit = initial_std(torch.ones(self.latent_size), self.min_std)
            with torch.no_grad():
                output.bias[self.latent_size :] = unit

    @typed
    def distribution(self, cond: Float[Tensor, "*batch cond"]) -> DiagonalGaussian:
        """The predicted distribution of each position, in float32 at least."""
        self._check_cond(cond)
        output = self.network(cond)
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        if self.std is not None:
            return DiagonalGaussian(output, torch.full_like(output, self.std))
        mean, raw = output.chunk(2, dim=-1)
        return DiagonalGaussian(mean, positive_std(raw, self.min_std))

    @typed
    def log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Log-density of one vector per position, in nats."""
        return self.distribution(cond).log_prob(self._checked_latents(latents))

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """-E log p(v | h) for v ~ target, exact and without sampling; see `Head.loss`."""
        target = self._checked_target(target)
        predicted = self.distribution(cond)
        return gaussian_cross_entropy(predicted.mean, predicted.std, target.mean, target.std)

    @typed
    def sample_from(
        self, cond: Float[Tensor, "*batch cond"], noise: Float[Tensor, "samples *batch latent"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """`mu + sigma * noise` for standard normal noise."""
        return self.distribution(cond).rsample_from(noise).to(noise.dtype)


@typed
def gaussian_cross_entropy(
    mean: Float[Tensor, "*batch latent"],
    std: Float[Tensor, "*batch latent"],
    target_mean: Float[Tensor, "*batch latent"],
    target_std: Float[Tensor, "*batch latent"],
) -> Float[Tensor, "*batch"]:
    """-E log N(v; mean, std^2) for v ~ N(target_mean, target_std^2), in nats.

        1/2 sum_i ((m_i - mu_i)^2 + s_i^2) / sigma_i^2 + log sigma_i^2 + log 2 pi

    Args:
        mean: mu.
        std: sigma, positive.
        target_mean: m.
        target_std: s; zero gives the negative log-density at m.
    """
    # Divide before squaring: for distant values the squares could overflow.
    squares = ((target_mean - mean) / std).square() + (target_std / std).square()
    return 0.5 * (squares + 2 * std.log() + math.log(2 * math.pi)).sum(dim=-1)


def check_min_std(min_std: float) -> None:
    """Refuse a floor that leaves the density unbounded, or is not below unit spread."""
    if not 0 < min_std < 1:
        raise ValueError(f"min_std must be in (0, 1), where latents have std 1; got {min_std}.")


def positive_std(raw: Tensor, min_std: float) -> Tensor:
    """`min_std + log(1 + e^raw)`: above the floor, with a gradient everywhere."""
    return min_std + softplus(raw)


def initial_std(std: Tensor, min_std: float) -> Tensor:
    """The `raw` that `positive_std` maps to `std`, for std above the floor."""
    above = std - min_std
    return above + (-torch.expm1(-above)).log()  # log(e^above - 1), which overflows at 90
