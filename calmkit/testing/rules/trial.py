"""A scoring rule under test."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule
from calmkit.testing.trial import Trial

__all__ = ["LATENT", "RuleTrial"]

LATENT = 3


class RuleTrial(Trial):
    """Builds a rule from nothing and calls it."""

    def build(self) -> ScoringRule:
        """A new rule."""
        return self.built(ScoringRule)

    def problem(
        self,
        batch: Sequence[int],
        latent: int = LATENT,
        *,
        samples: int = 5,
        std: float = 0.5,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, DiagonalGaussian]:
        """Samples and targets."""
        generator = self.generator(1)
        x = torch.randn(samples, *batch, latent, generator=generator, dtype=dtype)
        mean = torch.randn(*batch, latent, generator=generator, dtype=dtype)
        return x, DiagonalGaussian(mean, torch.full_like(mean, std))

    def noise(self, rule: ScoringRule, batch: Sequence[int], latent: int = LATENT) -> Tensor:
        """What `score_from` consumes."""
        return torch.randn(rule.noise_size, *batch, latent, generator=self.generator(2))

    def score(
        self, rule: ScoringRule, samples: Tensor, target: DiagonalGaussian, *, number: int = 0
    ) -> Tensor:
        """The rule's score, from the generator of a number."""
        return self.call(rule.score, samples, target, self.generator(number))
