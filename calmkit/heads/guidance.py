r"""Classifier-free guidance for any head, trained and sampled with and without its condition.

In training, the condition of a position is replaced by a learned null condition with probability
`dropout`. In sampling, the two network outputs are extrapolated linearly,

    f = (1 - w) f(null) + w f(cond),    w = `scale`.

Here w = 1 is the conditional distribution, w = 0 the unconditional one, and w > 1 exaggerates the
condition: samples concentrate where it makes a difference. f is the velocity of a flow, the
prediction of a diffusion model, the average velocity of a one-step flow, or the sample of an
energy head (from the same noise). Except at w = 0 and 1, each evaluation runs the network twice,
and samples follow neither of the trained distributions. Heads that draw from a density
(`GaussianHead`, `MixtureHead`, `ContrastiveHead`) have no output to extrapolate and accept only w
= 0 and 1.

Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_in
from calmkit.distributions import DiagonalGaussian, Target, standard_uniform
from calmkit.recording import built_by
from calmkit.typing import typed

from .base import Head
from .energy import EnergyHead
from .wrapping_head import WrappingHead

__all__ = ["GuidedHead"]


class GuidedHead(WrappingHead):
    """Wraps a head, which is trained with condition dropout and sampled with guidance."""

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
            scale: Guidance scale w.
            dropout: Probability in [0, 1) of hiding a position's condition in training.

        Raises:
            ValueError: If the scale is negative or not supported by the head, the dropout is out
                of range, or `head` does not build a head of these sizes.
        """
        super().__init__(cond_size, latent_size)
        check_in("[0, 1)", dropout=dropout)
        self.scale = scale
        self.dropout = dropout
        make = EnergyHead if head is None else head
        self.head = built_by("head", make, Head, cond_size=cond_size, latent_size=latent_size)
        self.null = nn.Parameter(torch.zeros(cond_size))
        self._check_sampling()  # fail now, not when a trained model first draws

    def _check_sampling(self) -> None:
        check_in("[0, inf)", scale=self.scale)
        kind = type(self.head)
        if self.scale not in (0.0, 1.0) and kind.sample_guided is Head.sample_guided:
            raise ValueError(
                f"scale must be 0 or 1 for {kind.__name__}, which cannot be guided; "
                f"got {self.scale}."
            )

    @property
    def evaluations_per_sample(self) -> int | None:
        """The evaluations of the wrapped head, doubled if both conditions are needed."""
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
        target: Target,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch"]:
        """Loss of the head with condition dropout; see `Head.loss`."""
        uniform = standard_uniform(
            cond.shape[:-1], generator, dtype=cond.dtype, device=cond.device
        )
        return self.loss_from(cond, DiagonalGaussian.of(target), uniform, generator)

    @typed
    def sample(
        self,
        cond: Float[Tensor, "*batch cond"],
        num_samples: int,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "samples *batch latent"]:
        """Draw samples with guidance; see `Head.sample`."""
        self._check_cond(cond)
        null = self.null.to(cond.dtype)
        if self.scale == 1.0:
            return self.head.sample(cond, num_samples, generator)
        if self.scale == 0.0:
            return self.head.sample(null.expand_as(cond), num_samples, generator)
        return self.head.sample_guided(cond, null, self.scale, num_samples, generator)
