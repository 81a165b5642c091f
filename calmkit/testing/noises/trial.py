"""A law of noise under test."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calmkit.heads import Noise
from calmkit.testing.trial import Trial

__all__ = ["NoiseTrial"]

_CPU = torch.device("cpu")


class NoiseTrial(Trial):
    """Builds a noise from nothing and draws."""

    def build(self) -> Noise:
        """A new noise."""
        return self.built(Noise)

    def draw(
        self,
        noise: Noise,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        number: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Draws of a shape, from a generator or from that of a number."""
        source = self.generator(number) if generator is None else generator
        return self.call(noise.draw, tuple(shape), source, dtype=dtype, device=_CPU)

    def draw_globally(self, noise: Noise, shape: Sequence[int]) -> Tensor:
        """Draws from torch's global generator."""
        return self.call(noise.draw, tuple(shape), None, dtype=torch.float64, device=_CPU)
