r"""The spread of a head's samples against its error.

With n samples x_j at each point, their mean x, and the posterior N(m, diag(s^2)) of the true
chunk, the squared spreads, averaged over points, are

    head:      V = 1/(n-1) sum_j ||x_j - x||^2
    posterior: sum_i s_i^2
    marginal:  sum_i C_ii, of the aggregate posterior
    error:     ||x - m||^2 + sum_i s_i^2 - V / n,    unbiased for E||z - E X||^2.

For a calibrated head the true latent is distributed like one more sample. Head and error are then
equal, and lie between posterior (the chunk is known) and marginal (nothing is known). The roots
are reported, in units of the latents.

Source: Fortin, Abaza, Anctil and Turcotte, "Why should ensemble spread match the RMSE of the
ensemble mean?", Journal of Hydrometeorology 2014.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .aggregate import latent_variance
from .base import Diagnostic

__all__ = ["SampleSpread", "sample_spread"]

# At most a fifth less or a quarter more than the error.
_NARROW, _WIDE = 0.8, 1.25


@dataclass(frozen=True)
class SampleSpread(Diagnostic):
    """Root mean squared spreads, in units of the latents.

    Attributes:
        head: Spread of the head's samples around their mean.
        posterior: Spread of the posterior: that of a head that knew the chunk.
        marginal: Spread of the latents of all chunks: that of a head that knew nothing.
        error: Distance of the true latent from the mean of the samples.
    """

    head: float
    posterior: float
    marginal: float
    error: float

    meaning = (
        "if narrower than the error, the head is overconfident (0: collapsed to one sample); "
        "if wider, its noise drowns its signal"
    )

    @property
    def ratio(self) -> float:
        """Head / posterior: 0 is collapsed, 1 as narrow as the posterior; usually above 1."""
        if self.posterior > 0:
            return self.head / self.posterior
        return math.inf if self.head > 0 else 1.0

    @property
    def is_bad(self) -> bool:
        """Whether the head's spread is outside [0.8, 1.25] times its error."""
        return not _NARROW * self.error <= self.head <= _WIDE * self.error

    @property
    def summary(self) -> str:
        """The head's spread and the others."""
        return (
            f"samples spread {self.head:.3g} around an error of {self.error:.3g} (posterior "
            f"{self.posterior:.3g}, marginal {self.marginal:.3g}; {self.ratio:.2g} posteriors)"
        )


@typed
@torch.no_grad()
def sample_spread(
    samples: Float[Tensor, "samples points latent"], target: DiagonalGaussian
) -> SampleSpread:
    """Compare spreads; see the module docstring.

    Args:
        samples: The head's samples, at least two at each point.
        target: Posterior of the true chunk, `points latent`.

    Raises:
        ValueError: If there are fewer than two samples.
    """
    count = samples.shape[0]
    if count < 2:
        raise ValueError(f"samples must hold at least 2 draws to have a spread; got {count}.")
    head = samples.var(dim=0).sum(dim=-1).mean()
    posterior = target.std.square().sum(dim=-1).mean()
    offset = (samples.mean(dim=0) - target.mean).square().sum(dim=-1).mean()
    error = offset + posterior - head / count
    squares = head, posterior, latent_variance(target).sum(), error.clamp_min(0)
    return SampleSpread(*(math.sqrt(float(square)) for square in squares))
