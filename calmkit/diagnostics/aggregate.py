r"""The aggregate posterior, the mixture of the posteriors of all chunks, against the prior.

Its mean mu and covariance C over chunks with posteriors N(m, diag(s^2)) are

    mu = E[m],    C = Cov[m] + diag(E[s^2]).

The KL of the Gaussian with these moments to the prior N(0, I) has two parts:

    KL = 1/2 (tr C + |mu|^2 - l - log det C) = sum_i KL(N(mu_i, C_ii) || N(0, 1)) + TC,
    TC = -1/2 log det corr(C).

The first measures how mean and width of each dimension differ from the prior's. The second, the
total correlation TC >= 0, measures how dimensions depend on each other. Both are in nats.

Source: Hoffman and Johnson, "ELBO surgery", 2016, for the aggregate posterior.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.typing import typed

from .base import Diagnostic

__all__ = ["PriorGap", "check_several", "latent_variance", "prior_gap"]

# A dimension of half the prior's width has 0.32 nats, one of twice its width 0.81, and one whose
# mean is off by one standard deviation 0.5.
_MOST_PER_DIMENSION = 0.3


@dataclass(frozen=True)
class PriorGap(Diagnostic):
    """Distance of the aggregate posterior from the standard normal, in nats; lower is better.

    Attributes:
        mean: mu_i of each dimension.
        std: Root of C_ii.
        marginal: KL(N(mu_i, C_ii) || N(0, 1)) of each dimension.
        total_correlation: TC; infinite if the latents lie in a subspace.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    marginal: tuple[float, ...]
    total_correlation: float

    meaning = (
        "latents are not at the scale at which heads start; standardise them "
        "(StandardizedAutoencoder)"
    )

    @property
    def is_bad(self) -> bool:
        """Whether mean and width alone cost more than 0.3 nats per dimension."""
        return sum(self.marginal) > _MOST_PER_DIMENSION * len(self.marginal)

    @property
    def summary(self) -> str:
        """The two parts and the range of widths."""
        return (
            f"latents have std {min(self.std):.2g} to {max(self.std):.2g}, "
            f"{sum(self.marginal) / len(self.marginal):.2g} nats per dimension from N(0, 1); "
            f"total correlation {self.total_correlation:.3g} nats"
        )


def check_several(**posteriors: DiagonalGaussian) -> None:
    """Refuse posteriors of fewer than two points, or with other axes than (points, latent)."""
    for name, posterior in posteriors.items():
        if posterior.mean.ndim != 2 or len(posterior.mean) < 2:
            raise ValueError(
                f"{name} must have shape (points, latent) with at least 2 points; got "
                f"{tuple(posterior.mean.shape)}."
            )


@typed
def latent_variance(posterior: DiagonalGaussian) -> Float[Tensor, " latent"]:
    """C_ii = Var[m_i] + E[s_i^2] over all chunks."""
    means = posterior.mean.flatten(0, -2)
    within = posterior.std.square().flatten(0, -2).mean(dim=0)
    return means.var(dim=0, correction=0) + within


@typed
@torch.no_grad()
def prior_gap(posterior: DiagonalGaussian) -> PriorGap:
    """Compare the aggregate posterior with N(0, I); see the module docstring.

    Args:
        posterior: Posteriors of many chunks, `points latent`. Point masses must be more than
            dimensions.

    Raises:
        ValueError: If there are fewer than two chunks.
    """
    check_several(posterior=posterior)
    points = len(posterior.mean)
    means = posterior.mean.double()
    mu, variance = means.mean(dim=0), latent_variance(posterior).double()
    centred = means - mu
    covariance = centred.T @ centred / points + posterior.std.double().square().mean(0).diag()
    marginal = 0.5 * (mu.square() + variance - 1 - variance.log())
    # Eigenvalues of the correlations: a singular matrix then has infinite TC instead of an error.
    scale = variance.sqrt()
    correlations = torch.where(scale > 0, scale, 1.0)
    values = torch.linalg.eigvalsh(covariance / correlations.outer(correlations))
    singular = bool((values <= len(values) * torch.finfo(values.dtype).eps * values[-1]).any())
    return PriorGap(
        mean=tuple(mu.tolist()),
        std=tuple(scale.tolist()),
        marginal=tuple(marginal.tolist()),
        total_correlation=float("inf") if singular else float(-0.5 * values.log().sum()),
    )
