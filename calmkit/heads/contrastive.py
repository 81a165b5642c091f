r"""Contrastive head: a quadratic energy, trained to be lower at the target than near it.

    E(z, h) = 1/2 |z - c|^2,    c = W h + b;    p(z | h) proportional to exp(-E(z, h) / T).

The energy of a negative z- = z+ + d near the target z+ should exceed that of z+ by a margin:

    loss = mean over negatives of max(0, margin + E(z+, h) - E(z-, h)),    d ~ N(0, r^2 / l I),

where r is the `distance` and l the latent size.

*Negatives.* Negatives are commonly the targets of other positions. A head must not mix positions,
so that a loss can be masked and a batch split. Draws of N(0, I), the distribution of all
standardised latents, would not mix positions, but train a separating direction: c moves past the
target, away from the origin, until the margin is met. With neighbours of the target, c becomes an
estimate of location. With a = z+ - c the loss is

    E max(0, margin - |d|^2 / 2 - d . a),

a convex function of |a| alone with its minimum at a = 0. If the distribution of z+ given h is
symmetric about a centre, the centre is an optimal c. The default margin r^2 / 2 is the mean of
|d|^2 / 2, so that about half of the negatives have a gradient at the optimum. With a much smaller
margin hardly any have one; with a much larger one almost all have, and their gradients cancel, so
that in many dimensions c is undetermined within some distance.

*Limits.* exp(-E / T) is N(c, T I): one Gaussian around a linear map of the condition, with the
same width everywhere. T is not learned. The loss does not depend on the spread, modes or
correlations of the target. This head is provided for comparison.

Source: LeCun, Chopra, Hadsell, Ranzato and Huang, "A tutorial on energy-based learning", 2006,
section 2.2.3 (margin losses).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least, check_positive
from calmkit.distributions import DiagonalGaussian, Target, standard_normal
from calmkit.typing import typed

from .base import NoiseHead

__all__ = ["ContrastiveHead"]


class ContrastiveHead(NoiseHead):
    """Linear prediction with a quadratic energy, trained with a margin."""

    sampling_arguments = frozenset({"temperature"})

    evaluations_per_sample = 1

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        margin: float = 0.5,
        distance: float = 1.0,
        negatives: int = 8,
        temperature: float = 1.0,
    ) -> None:
        """Build the linear map.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            margin: Required energy difference between a negative and the target.
            distance: Root mean square distance between a negative and the target.
            negatives: Negatives per position in a training step, each near its own draw from the
                target.
            temperature: T, the variance of samples in each dimension.

        Raises:
            ValueError: If a number is not positive.
        """
        super().__init__(cond_size, latent_size)
        check_positive(margin=margin, distance=distance)
        check_at_least(1, negatives=negatives)
        self.margin = margin
        self.distance = distance
        self.negatives = negatives
        self.temperature = temperature
        self._check_sampling()
        self.center = nn.Linear(cond_size, latent_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise all centres to 0, so that samples are N(0, T I)."""
        nn.init.zeros_(self.center.weight)
        nn.init.zeros_(self.center.bias)

    def _check_sampling(self) -> None:
        check_positive(temperature=self.temperature)

    @typed
    def energy(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """E(z, h) = 1/2 |z - c|^2."""
        return _energy(self._center(cond), self._checked_latents(latents))

    @typed
    def distribution(self, cond: Float[Tensor, "*batch cond"]) -> DiagonalGaussian:
        """exp(-E / T), normalised: N(c, T I)."""
        center = self._center(cond)
        return DiagonalGaussian(center, torch.full_like(center, math.sqrt(self.temperature)))

    @typed
    def log_prob(
        self, cond: Float[Tensor, "*batch cond"], latents: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch"]:
        """Log-density of one vector per position, in nats."""
        return self.distribution(cond).log_prob(self._checked_latents(latents))

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        latents: Float[Tensor, "negatives *batch latent"],
        negatives: Float[Tensor, "negatives *batch latent"],
    ) -> Float[Tensor, "*batch"]:
        """Mean hinge of given pairs, max(0, margin + E(z+, h) - E(z-, h)).

        Args:
            cond: Conditions.
            latents: Draws z+ from the target.
            negatives: The negative z- of each draw.
        """
        center = self._center(cond)
        gap = _energy(center, latents) - _energy(center, negatives)
        return (self.margin + gap).relu().mean(dim=0)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Hinge loss of each position; see `Head.loss`."""
        self._check_cond(cond)
        latents = self._checked_target(target).sample(self.negatives, generator)
        noise = standard_normal(
            latents.shape, generator, dtype=latents.dtype, device=latents.device
        )
        scale = self.distance / math.sqrt(self.latent_size)
        return self.loss_from(cond, latents, latents + scale * noise)

    @typed
    def sample_from(
        self, cond: Float[Tensor, "*batch cond"], noise: Float[Tensor, "samples *batch latent"]
    ) -> Float[Tensor, "samples *batch latent"]:
        """`c + sqrt(T) noise` for standard normal noise."""
        return self.distribution(cond).rsample_from(noise).to(noise.dtype)

    def _center(self, cond: Tensor) -> Tensor:
        self._check_cond(cond)
        center = self.center(cond)
        return center.to(torch.promote_types(center.dtype, torch.float32))


def _energy(center: Tensor, latents: Tensor) -> Tensor:
    return 0.5 * (latents - center).square().sum(dim=-1)
