r"""The effective rank of the backbone's states at the seam, where the head reads them.

With the singular values sigma_1, sigma_2, ... of the centred states h_t - mean h at many points,

    p_i = sigma_i / sum_j sigma_j,    effective rank = exp(-sum_i p_i log p_i).

It is r if the states vary equally in r directions, and at most the smaller of hidden size and
points - 1. A head knows the text only through these directions. Beside it stands the share of the
mean square that is the same at all points, ||mean h||^2 / mean ||h_t||^2, which a norm at the seam
wastes its precision on.

Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO
2007.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

from .base import Diagnostic

__all__ = ["StateRank", "state_rank"]

# A collapsed backbone has a few directions left. Two trained ones of 64 features had 54 and 56.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class StateRank(Diagnostic):
    """Directions in which states differ between points.

    Attributes:
        effective: Effective rank; 0 if all states are equal.
        possible: Its upper bound, the smaller of hidden size and points - 1.
        common: Share of the states' mean square that all points share.
    """

    effective: float
    possible: int
    common: float

    meaning = (
        "the backbone has collapsed to few directions, and no head can know more of the text "
        "than these; lower its learning rate, or take away a norm before the head"
    )

    @property
    def is_bad(self) -> bool:
        """Whether the rank is below a tenth of the possible one."""
        return self.effective < _LEAST_SHARE * self.possible

    @property
    def summary(self) -> str:
        """The rank and the common share."""
        return (
            f"states have effective rank {self.effective:.3g} of {self.possible}; "
            f"{self.common:.0%} of their mean square is the same at all points"
        )


@typed
@torch.no_grad()
def state_rank(states: Float[Tensor, "points hidden"]) -> StateRank:
    """Measure the effective rank of states; see the module docstring.

    Args:
        states: The backbone's states at many points of the text.

    Raises:
        ValueError: If there are fewer than two points.
    """
    points, hidden = states.shape
    if points < 2:
        raise ValueError(f"states must hold at least 2 points to differ; got {points}.")
    wide = states.double()
    mean = wide.mean(dim=0)
    centred = wide - mean
    # Eigenvalues of the smaller of two matrices that have the same ones.
    gram = centred.T @ centred if hidden <= points else centred @ centred.T
    sigma = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total, size = float(sigma.sum()), float(wide.square().sum(dim=-1).mean())
    shares = sigma / total if total > 0 else sigma
    entropy = float(-torch.xlogy(shares, shares).sum())
    return StateRank(
        effective=math.exp(entropy) if total > 0 else 0.0,
        possible=min(hidden, points - 1),
        common=float(mean.square().sum()) / size if size > 0 else 0.0,
    )
