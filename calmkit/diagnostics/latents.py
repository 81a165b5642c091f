r"""The dimensions of the latents that carry information about the text.

The posterior N(m_i, s_i^2) of dimension i, over chunks, has

    signal_i = Var[m_i] / (Var[m_i] + E[s_i^2]),    KL_i = E[(m_i^2 + s_i^2 - 1) / 2 - log s_i].

A dimension whose mean hardly varies between chunks carries no information about the chunk,
whatever its KL. It is *active* if signal_i > 0.01, which is Var[m_i] > 0.01 at the prior's unit
variance. Unlike the variance, signal_i is the same for standardised latents. KL_i is in nats and
in the given coordinates; it is an upper bound of the information that the dimension carries.

Source: Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016, appendix C.
"""

from dataclasses import dataclass

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .aggregate import check_several, latent_variance
from .base import Diagnostic

__all__ = ["LatentUse", "latent_use"]

_ACTIVE = 0.01
# Plain KL lets 71 of the paper's 128 dimensions collapse, its clipped KL none.
_LEAST_ACTIVE = 0.9


@dataclass(frozen=True)
class LatentUse(Diagnostic):
    """Signal and KL of each dimension.

    Attributes:
        signal: Share of each dimension's variance that is variance of its mean.
        kl: Mean KL of each dimension to the standard normal, in nats; infinite for a point mass.
    """

    signal: tuple[float, ...]
    kl: tuple[float, ...]

    meaning = (
        "collapsed dimensions are noise that a head must imitate in vain; clip the KL "
        "(free bits), lower its weight, or use fewer dimensions"
    )

    @property
    def is_active(self) -> tuple[bool, ...]:
        """For each dimension, whether more than 1 % of its variance is signal."""
        return tuple(signal > _ACTIVE for signal in self.signal)

    @property
    def active(self) -> int:
        """The number of active dimensions."""
        return sum(self.is_active)

    @property
    def is_bad(self) -> bool:
        """Whether fewer than nine dimensions in ten are active."""
        return self.active < _LEAST_ACTIVE * len(self.signal)

    @property
    def summary(self) -> str:
        """Active dimensions and KL."""
        return (
            f"{self.active} of {len(self.signal)} latent dimensions active; KL {sum(self.kl):.3g} "
            f"nats, {min(self.kl):.2g} to {max(self.kl):.2g} per dimension"
        )


@typed
@torch.no_grad()
def latent_use(posterior: DiagonalGaussian) -> LatentUse:
    """Measure signal and KL of each dimension; see the module docstring.

    Args:
        posterior: Posteriors of many chunks, `points latent`.

    Raises:
        ValueError: If there are fewer than two chunks.
    """
    check_several(posterior=posterior)
    variance = latent_variance(posterior)
    signal = posterior.mean.var(dim=0, correction=0) / torch.where(variance > 0, variance, 1.0)
    return LatentUse(
        signal=tuple(signal.tolist()),
        kl=tuple(posterior.kl_to_standard_normal().mean(dim=0).tolist()),
    )
