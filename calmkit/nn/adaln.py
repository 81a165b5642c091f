r"""Residual MLP with adaptive LayerNorm: the network of the flow and diffusion heads.

A block reads the condition through shift, scale and gate of a normalised branch,

    x <- x + g * mlp(LN(x) * (1 + b) + a),    (a, b, g) = W silu(time + cond),

and starts as the identity, since W is initialised to zero. The condition enters only through
modulations, which depend on (time, cond) and not on x. Samples of a position with the same time
share them, so they are computed once (see `AdaptiveMLP.forward`).

Source: Peebles and Xie, "Scalable Diffusion Models with Transformers", arXiv 2212.09748
(adaLN-Zero); Li et al., "Autoregressive Image Generation without Vector Quantization",
arXiv 2406.11838.
"""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.typing import typed

from .dual import Dual, layer_norm, linear, sequential, silu
from .initialization import scaled_normal_

__all__ = ["AdaptiveMLP"]

# Number of rates of time, 10000^(-j / 128), from 1 almost down to 1e-4.
_FREQUENCIES = 128


class AdaptiveMLP(nn.Module):
    """Maps (x, time, cond) to a vector, for instance a velocity or a noise estimate."""

    def __init__(
        self,
        cond_size: int,
        in_size: int,
        out_size: int,
        *,
        width: int,
        depth: int,
        resolution: float = 1000.0,
    ) -> None:
        """Build the network; its output is initially zero.

        Args:
            cond_size: Features of the condition.
            in_size: Features of `x`.
            out_size: Features of the output.
            width: Features of the hidden layers.
            depth: Number of residual blocks.
            resolution: Resolution of the time embedding; see `TimeEmbedding`.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__()
        check_at_least(
            1, cond_size=cond_size, in_size=in_size, out_size=out_size, width=width, depth=depth
        )
        self.time_embedding = TimeEmbedding(width, resolution=resolution)
        self.cond_embedding = nn.Linear(cond_size, width)
        self.input = nn.Linear(in_size, width)
        self.blocks = nn.ModuleList(AdaptiveBlock(width) for _ in range(depth))
        self.output_norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.output_modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, out_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise; modulations and output are zero, so each block is the identity."""
        scaled_normal_(self)
        nn.init.zeros_(self.output_modulation.weight)
        nn.init.zeros_(self.output.weight)
        for module in self.modules():
            if isinstance(module, AdaptiveBlock):
                nn.init.zeros_(module.modulation.weight)

    @typed
    def forward(
        self,
        x: Float[Tensor, "samples *batch in_size"],
        time: Float[Tensor, "#samples *#batch"],
        cond: Float[Tensor, "*batch cond_size"],
    ) -> Float[Tensor, "samples *batch out_size"]:
        """Evaluate the network.

        Args:
            x: One input per sample and position.
            time: Time of each input. If samples share a time, pass an axis of size 1: the
                modulations are then computed once per position instead of once per sample.
            cond: Condition of each position.
        """
        return self.modulated(x, self.time_embedding(time) + self.cond_embedding(cond))

    @typed
    def modulated(
        self,
        x: Float[Tensor, "samples *batch in_size"],
        embedding: Float[Tensor, "#samples *batch width"],
    ) -> Float[Tensor, "samples *batch out_size"]:
        """The network after its embeddings, for callers that embed more than time and condition.

        Args:
            x: One input per sample and position.
            embedding: Sum of all embeddings; the first axis is 1 if samples share it.
        """
        signal = nn.functional.silu(embedding)
        hidden = self.input(x)
        for block in self.blocks:
            hidden = block(hidden, signal)
        shift, scale = self.output_modulation(signal).chunk(2, dim=-1)
        return self.output(self.output_norm(hidden) * (1 + scale) + shift)

    @typed
    def modulated_dual(self, x: Dual, embedding: Dual) -> Dual:
        """`modulated` and its derivative along the tangents of both arguments.

        Args:
            x: One input per sample and position.
            embedding: Sum of all embeddings.
        """
        signal = silu(embedding)
        hidden = linear(self.input, x)
        for block in self.blocks:
            hidden = cast(AdaptiveBlock, block).dual(hidden, signal)
        shift, scale = linear(self.output_modulation, signal).chunk(2)
        return linear(self.output, layer_norm(self.output_norm, hidden) * scale.plus(1.0) + shift)


class AdaptiveBlock(nn.Module):
    """One residual block with adaptive LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    @typed
    def forward(
        self,
        x: Float[Tensor, "samples *batch width"],
        signal: Float[Tensor, "#samples *batch width"],
    ) -> Float[Tensor, "samples *batch width"]:
        """`x + g * mlp(LN(x) * (1 + b) + a)` with `(a, b, g)` linear in `signal`."""
        shift, scale, gate = self.modulation(signal).chunk(3, dim=-1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)

    @typed
    def dual(self, x: Dual, signal: Dual) -> Dual:
        """`forward` and its derivative along the tangents of both arguments."""
        shift, scale, gate = linear(self.modulation, signal).chunk(3)
        inner = layer_norm(self.norm, x) * scale.plus(1.0) + shift
        return x + gate * sequential(self.mlp, inner)


class TimeEmbedding(nn.Module):
    """Sinusoids of a continuous time in [0, 1], then a two-layer MLP; differentiable in time."""

    def __init__(self, width: int, *, resolution: float = 1000.0) -> None:
        """Build the embedding.

        Args:
            width: Features of the embedding.
            resolution: Factor on time; 1000 as in networks trained on 1000 discrete steps.
        """
        super().__init__()
        self.resolution = resolution
        self.mlp = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    @typed
    def forward(self, time: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """`mlp([cos(a), sin(a)])` of the angles `a_j = resolution * time * rate_j`, in radians.

        Args:
            time: Times in [0, 1].
        """
        angles = time[..., None] * self._speeds(time)
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(features.to(time.dtype))

    @typed
    def dual(self, time: Dual) -> Dual:
        """`forward` and its derivative along the tangent of the time."""
        speeds = self._speeds(time.value)
        angles = time.value[..., None] * speeds
        cos, sin = angles.cos(), angles.sin()
        rate = time.tangent[..., None] * speeds
        value = torch.cat([cos, sin], dim=-1).to(time.value.dtype)
        tangent = torch.cat([-sin * rate, cos * rate], dim=-1).to(time.tangent.dtype)
        return sequential(self.mlp, Dual(value, tangent))

    def _speeds(self, time: Tensor) -> Tensor:
        """Radians per unit of time, at least in float32: bfloat16 rounds 1000 by up to 2.

        They are not a buffer, because a cast of the model to bfloat16 would round it.
        """
        dtype = torch.promote_types(time.dtype, torch.float32)
        number = torch.arange(_FREQUENCIES, dtype=dtype, device=time.device)
        return self.resolution * torch.exp(-math.log(10000.0) / _FREQUENCIES * number)
