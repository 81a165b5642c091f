r"""Dual numbers: a tensor and its derivative along one direction, carried through layers.

A function f maps a dual number (x, dx) to (f(x), f'(x) dx), so that one pass computes a value and
an exact directional derivative (forward-mode differentiation).

The rules are written out here with plain tensor operations, instead of using `torch.func.jvp`. In
torch 2.13, `jvp` gives wrong gradients for a loss that contains the derivative of a layer norm (it
takes the norm's saved statistics as constants), and the graph of such a loss does not compile. The
explicit rules give correct gradients, compile, and are faster.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Dual", "layer_norm", "linear", "sequential", "silu"]


@dataclass(frozen=True, eq=False)
class Dual:
    """A value and its tangent; sums and products follow the rules of differentiation.

    Attributes:
        value: The tensor.
        tangent: Its derivative along the direction, of the same shape.
    """

    value: Tensor
    tangent: Tensor

    def __post_init__(self) -> None:
        """Check only the shapes: a network creates hundreds of these."""
        if self.value.shape != self.tangent.shape:
            raise ValueError(
                f"tangent must have the shape of value, {tuple(self.value.shape)}; "
                f"got {tuple(self.tangent.shape)}."
            )

    def __add__(self, other: "Dual") -> "Dual":
        """`(a + b, da + db)`."""
        return Dual(self.value + other.value, self.tangent + other.tangent)

    def __sub__(self, other: "Dual") -> "Dual":
        """`(a - b, da - db)`."""
        return Dual(self.value - other.value, self.tangent - other.tangent)

    def __mul__(self, other: "Dual") -> "Dual":
        """`(a b, da b + a db)`."""
        tangent = self.tangent * other.value + self.value * other.tangent
        return Dual(self.value * other.value, tangent)

    def plus(self, constant: Tensor | float) -> "Dual":
        """`(a + c, da)`. Not an operator: `torch.compile` would use the tensor's own instead."""
        value = self.value + constant
        return Dual(value, self.tangent.expand_as(value))

    def chunk(self, chunks: int) -> list["Dual"]:
        """Equal parts of the last axis."""
        parts = zip(self.value.chunk(chunks, -1), self.tangent.chunk(chunks, -1), strict=True)
        return [Dual(value, tangent) for value, tangent in parts]


def linear(layer: nn.Linear, x: Dual) -> Dual:
    """`(W x + b, W dx)`."""
    return Dual(layer(x.value), nn.functional.linear(x.tangent, layer.weight))


def silu(x: Dual) -> Dual:
    """`(x s, (s + x s (1 - s)) dx)` with the logistic function `s` of `x`."""
    gate = torch.sigmoid(x.value)
    value = x.value * gate
    return Dual(value, (gate + value * (1 - gate)) * x.tangent)


def layer_norm(layer: nn.LayerNorm, x: Dual) -> Dual:
    """`n = (x - mean) / std`, `dn = (dx - mean(dx) - n mean(n dx)) / std`; then scale and shift.

    Args:
        layer: A norm over the last axis, with or without scale and shift.
        x: Its input.
    """
    # At least float32: the sums behind mean and variance lose too many digits in bfloat16.
    dtype = torch.promote_types(x.value.dtype, torch.float32)
    # Layers of a model that was cast to bfloat16 need its dtype again; autocast casts by itself.
    out = dtype if torch.is_autocast_enabled(x.value.device.type) else x.value.dtype
    value, tangent = x.value.to(dtype), x.tangent.to(dtype)
    centred = value - value.mean(dim=-1, keepdim=True)
    rate = (centred.square().mean(dim=-1, keepdim=True) + layer.eps).rsqrt()
    normed = centred * rate
    tangent = tangent - tangent.mean(dim=-1, keepdim=True)
    tangent = (tangent - normed * (normed * tangent).mean(dim=-1, keepdim=True)) * rate
    if layer.weight is not None:
        normed, tangent = normed * layer.weight + layer.bias, tangent * layer.weight
    return Dual(normed.to(out), tangent.to(out))


def sequential(layers: nn.Sequential, x: Dual) -> Dual:
    """Apply one layer after the other.

    Args:
        layers: Linear layers, layer norms and SiLUs.
        x: Input of the first layer.

    Raises:
        TypeError: If a layer is of another type.
    """
    for layer in layers:
        if isinstance(layer, nn.Linear):
            x = linear(layer, x)
        elif isinstance(layer, nn.LayerNorm):
            x = layer_norm(layer, x)
        elif isinstance(layer, nn.SiLU):
            x = silu(x)
        else:
            raise TypeError(f"layers must be Linear, LayerNorm or SiLU; got {type(layer)}.")
    return x
