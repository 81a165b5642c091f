"""Laws of the noise that an implicit sampler turns into samples, as swappable parts."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.distributions import standard_normal, standard_uniform

__all__ = ["GaussianNoise", "Noise", "UniformNoise"]


class Noise(abc.ABC):
    """A law of independent numbers with mean zero.

    A noise may state its law as a method `cdf`, the distribution function of one number, from
    float64 to float64; `calmkit.testing` then compares its draws with it.
    """

    @abc.abstractmethod
    def draw(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Independent draws of a given shape, dtype and device."""


@dataclass(frozen=True)
class UniformNoise(Noise):
    """U[-1/2, 1/2], as in arXiv 2510.27688: bounded, with variance 1/12."""

    def draw(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Uniform draws less 1/2."""
        return standard_uniform(shape, generator, dtype=dtype, device=device) - 0.5

    def cdf(self, x: Tensor) -> Tensor:
        """X + 1/2, from 0 to 1."""
        return (x + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class GaussianNoise(Noise):
    """N(0, 1): unbounded, so that rare samples can lie far out."""

    def draw(
        self,
        shape: Sequence[int],
        generator: torch.Generator | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Standard normal draws."""
        return standard_normal(shape, generator, dtype=dtype, device=device)

    def cdf(self, x: Tensor) -> Tensor:
        """(1 + erf(x / sqrt 2)) / 2."""
        return torch.special.ndtr(x)
