r"""Variance of the reverse steps of a diffusion model, as swappable parts.

Given the clean x, the reverse step has the posterior variance. For a network's estimate of x the
optimal variance lies between that and beta. A fraction f interpolates,

    log var_t = f log beta_t + (1 - f) log posterior_variance_t.

It is fixed at 0 (small) or 1 (large), or predicted by the network per dimension. A learned
fraction is trained by the variational bound, in bits,

    KL(true reverse step || model's step) / log 2,    at t = 0: -log2 p(x | x_0),

with a stopped gradient of the estimate of x. At t = 0 the code of these papers uses the
probability of one of 256 grey levels on [-1, 1] instead of a density; latents have no such levels.

Source: Ho et al., arXiv 2006.11239, section 3.2 (fixed); Nichol and Dhariwal, arXiv 2102.09672,
section 3.1, equations 15 and 16 (learned; f = (output + 1) / 2 as in its code); as a head, Li et
al., arXiv 2406.11838.
"""

import abc
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["FixedVariance", "LearnedVariance", "ReverseVariance"]


class ReverseVariance(abc.ABC):
    """The source of the fraction, and its loss."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Network outputs per dimension, the estimate included."""

    @abc.abstractmethod
    def split(self, output: Tensor) -> tuple[Tensor, Tensor | float]:
        """The estimate and the fraction, from the network's output."""

    def bound(
        self,
        fraction: Tensor | float,
        mean_error: Float[Tensor, "*batch latent"],
        upper: Float[Tensor, "*batch 1"],
        lower: Float[Tensor, "*batch 1"],
        first: Bool[Tensor, "*batch 1"],
    ) -> Float[Tensor, "*batch latent"]:
        """The contribution of each dimension to the loss; zero where nothing is trained.

        Args:
            fraction: Fraction from `split`.
            mean_error: Difference between the model's mean and the true one, without gradient.
            upper: log beta.
            lower: Logarithm of the posterior variance.
            first: Whether the step is the first of the schedule.
        """
        return torch.zeros_like(mean_error)


@dataclass(frozen=True)
class LearnedVariance(ReverseVariance):
    """A second output per dimension, trained by the variational bound (hybrid loss).

    Do not combine it with clean prediction: at the first steps, where the variance is tiny, its
    errors make the bound dominate the loss. Use `FixedVariance` instead.
    """

    outputs = 2  # the estimate and the fraction

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | float]:
        """First half, and `(second half + 1) / 2`; the fraction may leave [0, 1]."""
        estimate, raw = output.chunk(2, dim=-1)
        return estimate, (raw + 1) / 2

    @typed
    def bound(
        self,
        fraction: Tensor | float,
        mean_error: Float[Tensor, "*batch latent"],
        upper: Float[Tensor, "*batch 1"],
        lower: Float[Tensor, "*batch 1"],
        first: Bool[Tensor, "*batch 1"],
    ) -> Float[Tensor, "*batch latent"]:
        """KL of the reverse steps, or the negative log-density at the first; in bits."""
        log_variance = fraction * upper + (1 - fraction) * lower
        error = mean_error.square() * (-log_variance).exp()
        kl = log_variance - lower - 1 + (lower - log_variance).exp() + error
        nll = log_variance + math.log(2 * math.pi) + error
        return torch.where(first, nll, kl) * (0.5 / math.log(2))


@dataclass(frozen=True)
class FixedVariance(ReverseVariance):
    """The posterior variance (small, exact for a point mass) or beta (large, for N(0, 1)).

    Attributes:
        large: Whether to use beta.
    """

    large: bool = False

    outputs = 1

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | float]:
        """The output itself, and 0 or 1."""
        return output, float(self.large)
