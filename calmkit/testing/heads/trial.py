"""A head under test."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import Head
from calmkit.testing.modules import gradients_of_training
from calmkit.testing.trial import Trial

__all__ = ["COND", "LATENT", "HeadTrial"]

COND = 5
LATENT = 3


class HeadTrial(Trial):
    """Builds a head from `(cond_size, latent_size)` and calls it."""

    def build(self, latent: int = LATENT, cond: int = COND, *, number: int = 0) -> Head:
        """A new head; two of one number are equal."""
        return self.built(Head, cond, latent, number=number)

    def lively(
        self, latent: int = LATENT, *, steps: int = 10, lr: float = 0.03, **cast: Any
    ) -> Head:
        """A head after ten steps of training: what starts at zero would hide what it multiplies.

        Args:
            latent: Dimensions of a sample.
            steps: How many steps instead.
            lr: Their size.
            cast: Arguments of `Head.to`, for after the training.
        """
        head = self.build(latent)
        self.train(head, steps=steps, latent=latent, lr=lr)
        return head.to(**cast) if cast else head

    def train(
        self, head: Head, *, steps: int, latent: int = LATENT, lr: float = 0.03
    ) -> list[dict[str, Tensor]]:
        """Train on random targets; the gradients of each step, by parameter."""

        def loss(step: int) -> Tensor:
            cond, target = self.problem((8,), latent, number=100 + step)
            return self.loss(head, cond, target, number=step)

        return gradients_of_training(head, loss, steps=steps, lr=lr)

    def problem(
        self,
        batch: Sequence[int],
        latent: int = LATENT,
        *,
        number: int = 1,
        std: float = 0.3,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Conditions and targets; not of unit spread, where a variance is a standard deviation."""
        generator = self.generator(number)
        cond = torch.randn(*batch, COND, generator=generator, dtype=dtype)
        mean = 0.5 * torch.randn(*batch, latent, generator=generator, dtype=dtype)
        return cond, DiagonalGaussian(mean, torch.full_like(mean, std))

    def loss(
        self, head: Head, cond: Tensor, target: DiagonalGaussian, *, number: int = 0
    ) -> Tensor:
        """The head's loss, from the generator of a number.

        The global generator is seeded too: contracts of other matters do not see its use.
        """
        torch.manual_seed(number)
        return self.call(head.loss, cond, target, self.generator(number))

    def sample(self, head: Head, cond: Tensor, num_samples: int, *, number: int = 0) -> Tensor:
        """The head's samples, from the generator of a number; see `loss`."""
        torch.manual_seed(number)
        return self.call(head.sample, cond, num_samples, self.generator(number))
