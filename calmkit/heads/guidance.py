r"""Classifier-free guidance: any head, trained and sampled with and without its condition.

In training the condition of a position is replaced with probability `dropout` by a learnt null
condition. In sampling the two are combined by a linear extrapolation of what the network says,

    f = (1 - w) f(null) + w f(cond),    w = `scale`,

w = 1 being the conditional law itself, w = 0 the unconditional one, w > 1 an exaggeration of the
condition: samples gather where it makes a difference. f is the velocity of a flow, the prediction
of a diffusion model, the average velocity of a one-step flow, the sample itself of an energy head
(from one noise). At w other than 0 and 1 each evaluation runs the network twice, and the law of
samples is neither of the trained ones. Heads that draw from a density (`GaussianHead`,
`MixtureHead`, `ContrastiveHead`) have nothing here to extrapolate: they take w = 0 and 1 only.

Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.distributions import DiagonalGaussian, standard_uniform
from calmkit.typing import typed

from .base import Head
from .energy import EnergyHead

__all__ = ["GuidedHead"]


class GuidedHead(Head):
    """Any head, trained with condition dropout and sampled with guidance."""

    sampling_arguments = frozenset({"scale"})

    def __init__(
        self,
        cond_size: int,
        latent_size: int,
        *,
        head: Callable[[int, int], Head] | None = None,
        scale: float = 1.0,
        dropout: float = 0.1,
    ) -> None:
        """Build the head and the null condition.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of a sample.
            head: Builds the head from both sizes; an `EnergyHead` if None.
            scale: w of sampling, unless a call says otherwise.
            dropout: Probability in [0, 1) with which training hides a position's condition.

        Raises:
            ValueError: If the scale is negative or one that the head cannot be guided with, or
                the dropout out of range.
        """
        super().__init__(cond_size, latent_size)
        _check_scale(scale)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}.")
        self.scale = scale
        self.dropout = dropout
        self.head = (EnergyHead if head is None else head)(cond_size, latent_size)
        # Now, and not when a trained model first draws.
        if scale not in (0.0, 1.0) and type(self.head).sample_guided is Head.sample_guided:
            raise ValueError(
                f"scale must be 0 or 1 for {type(self.head).__name__}, which cannot be guided; "
                f"got {scale}."
            )
        self.null = nn.Parameter(torch.zeros(cond_size))

    @property
    def evaluations_per_sample(self) -> int | None:
        """The head's, twice where both conditions are needed."""
        once = self.head.evaluations_per_sample
        return once if once is None or self.scale in (0.0, 1.0) else 2 * once

    @typed
    def loss_from(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        uniform: Float[Tensor, "*batch"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The head's loss, without the condition where `uniform` is below `dropout`."""
        self._check_cond(cond)
        null = self.null.to(cond.dtype)
        cond = torch.where((uniform < self.dropout)[..., None], null, cond)
        return self.head.loss(cond, target, generator)

    @typed
    def loss(
        self,
        cond: Float[Tensor, "*batch cond"],
        target: DiagonalGaussian,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Loss of the head with condition dropout; see `Head.loss`."""
        uniform = standard_uniform(
            cond.shape[:-1], generator, dtype=cond.dtype, device=cond.device
        )
        return self.loss_from(cond, target, uniform, generator)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
        *,
        scale: float | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw samples with guidance; see `Head.sample`.

        Args:
            cond: Conditions.
            num_samples: Number of samples of each position.
            generator: Source of randomness; torch's global one if None.
            scale: w; the head's if None.

        Raises:
            ValueError: If the scale is negative, or sizes do not fit.
        """
        self._check_cond(cond)
        scale = self.scale if scale is None else scale
        _check_scale(scale)
        null = self.null.to(cond.dtype)
        if scale == 1.0:
            return self.head.sample(cond, num_samples, generator)
        if scale == 0.0:
            return self.head.sample(null.expand_as(cond), num_samples, generator)
        return self.head.sample_guided(cond, null, scale, num_samples, generator)


def _check_scale(scale: float) -> None:
    if not 0.0 <= scale < float("inf"):
        raise ValueError(f"scale must be at least 0 and finite; got {scale}.")
