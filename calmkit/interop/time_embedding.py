r"""Time embedding of the published flow and diffusion networks: sinusoids of a whole step.

    n = floor(1000 t + o),    a_j = n exp(-log(10000) j / 128),    mlp([cos(a), sin(a)])

The published flow truncates (o = 0): its velocity is constant in t within each thousandth and has
no useful derivative in t. The published diffusion network receives the step n itself; calmkit's
schedules give t = n / 1000, from which rounding (o = 1/2) recovers n. The rates are always
computed in single precision, whatever the precision of the weights: at n = 1000 their rounding
changes an angle by 6e-5, more than two implementations of one network may differ.

Source: Li et al., arXiv 2406.11838 (MAR), whose network the published heads use.
"""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.typing import typed

__all__ = ["PublishedTimeEmbedding"]

_FREQUENCIES = 128
_STEPS = 1000.0


class PublishedTimeEmbedding(nn.Module):
    """Replaces the time embedding of an `AdaptiveMLP`."""

    def __init__(self, width: int, *, offset: float) -> None:
        """Build the embedding.

        Args:
            width: Features of the embedding.
            offset: o; 0 truncates, as in the published flow; 1/2 rounds to the nearest step.

        Raises:
            ValueError: If the width is not positive or the offset not in [0, 1).
        """
        super().__init__()
        check_at_least(1, width=width)
        if not 0 <= offset < 1:
            raise ValueError(
                f"offset must be in [0, 1): 0 truncates, 0.5 rounds to nearest; got {offset}."
            )
        self.offset = offset
        self.mlp = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    @typed
    def forward(self, time: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Embed times, each by its step.

        Args:
            time: Times in [0, 1].
        """
        j = torch.arange(_FREQUENCIES, dtype=torch.float32, device=time.device)
        rates = torch.exp(-math.log(10000.0) * j / _FREQUENCIES)
        # Half precision cannot distinguish a thousand steps.
        time = time.to(torch.promote_types(time.dtype, torch.float32))
        angles = (_STEPS * time + self.offset).floor()[..., None] * rates
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(sinusoids.to(cast(nn.Linear, self.mlp[0]).weight.dtype))
