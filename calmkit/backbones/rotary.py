r"""Rotary positions: the dot product of a query and a key depends on their distance only.

Feature pair j (feature j and feature j + head_dim / 2) is turned by the angle
`position * theta^(-2 j / head_dim)`.

Source: Su et al., "RoFormer", arXiv 2104.09864; pairing of halves as in Llama.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["apply_rotary", "rotary_angles"]


@typed
def rotary_angles(
    positions: Int[Tensor, "*batch length"], head_dim: int, *, theta: float
) -> Float[Tensor, "*batch length half"]:
    """Angle of each feature pair at each position, in radians."""
    pairs = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    rates = theta ** (-pairs / head_dim)
    return positions[..., None].to(torch.float32) * rates


@typed
def apply_rotary(
    x: Float[Tensor, "batch length heads head_dim"], angles: Float[Tensor, "#batch length half"]
) -> Float[Tensor, "batch length heads head_dim"]:
    """Turn each feature pair of queries or keys by its angle."""
    cos = angles.cos().to(x.dtype)[:, :, None]
    sin = angles.sin().to(x.dtype)[:, :, None]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
