r"""Rotary positions: the dot product of a query and a key depends only on their distance.

Feature pair j (feature j and feature j + head_dim / 2) is rotated by the angle
`position * rate_j`, where `rate_j = theta^(-2 j / head_dim)` unless a scaling changes it:

    x * (cos, cos) + swapped halves of x * (-sin, sin)

Source: Su et al., "RoFormer", arXiv 2104.09864; pairing of halves as in Llama.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

from .rope_scaling import RopeScaling

__all__ = ["Rotation", "apply_rotary", "rotation_at"]


@typed
@dataclass(frozen=True, eq=False)
class Rotation:
    """The factors of each feature and of its partner at each position.

    Attributes:
        cos: Cosine of the pair's angle, for both halves.
        sin: Its sine, negative for the first half.
    """

    cos: Float[Tensor, "#batch length head_dim"]
    sin: Float[Tensor, "#batch length head_dim"]


@typed
def rotation_at(
    positions: Int[Tensor, "#batch length"],
    head_dim: int,
    *,
    theta: float,
    scaling: RopeScaling | None = None,
) -> Rotation:
    """The rotation at each position, in float32.

    Args:
        positions: Whole numbers.
        head_dim: Features of a head; even.
        theta: Base of the wavelengths.
        scaling: Changes the rates, for texts longer than those seen in training.
    """
    pairs = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    rates = theta ** (-pairs / head_dim)
    factor = 1.0
    if scaling is not None:
        rates, factor = scaling.scaled(rates), scaling.attention_factor
    angles = positions[..., None].to(torch.float32) * rates
    cos, sin = factor * angles.cos(), factor * angles.sin()
    return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


@typed
def apply_rotary(
    x: Float[Tensor, "batch length heads head_dim"], rotation: Rotation
) -> Float[Tensor, "batch length heads head_dim"]:
    """Rotate each feature pair of queries or keys by its angle."""
    cos, sin = (part.to(x.dtype)[:, :, None] for part in (rotation.cos, rotation.sin))
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
