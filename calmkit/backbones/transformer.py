r"""Pre-norm Transformer decoder in the style of Llama.

    x <- x + attention(norm(x)),    x <- x + swiglu(norm(x)),    output norm(x)

with RMSNorm, rotary positions, grouped-query attention and no biases. Weights are drawn from
N(0, 1 / fan_in), those that write into the residual stream with a further factor
`1 / sqrt(2 depth)` (Radford et al., "Language Models are Unsupervised Multitask Learners",
section 2.3), so that the stream's variance does not grow with depth.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.attention import AttentionMask, KVCache, attention
from calmkit.backbones.base import Backbone, Cache
from calmkit.backbones.rotary import apply_rotary, rotary_angles
from calmkit.nn import SwiGLU, scaled_normal_
from calmkit.typing import typed

__all__ = ["TransformerBackbone"]


class TransformerBackbone(Backbone):
    """Causal Transformer over chunk vectors."""

    def __init__(
        self,
        hidden_size: int,
        *,
        depth: int = 4,
        heads: int = 4,
        kv_heads: int | None = None,
        ff_size: int | None = None,
        rope_theta: float = 10000.0,
    ) -> None:
        """Build the layers.

        Args:
            hidden_size: Features of input vectors and hidden states.
            depth: Number of layers.
            heads: Query heads of each layer.
            kv_heads: Key/value heads; as many as query heads if None.
            ff_size: Hidden features of the feed-forward layers; see `SwiGLU`.
            rope_theta: Base of the rotary wavelengths.

        Raises:
            ValueError: If the heads do not divide the features, or a size is out of range.
        """
        super().__init__(hidden_size)
        kv_heads = heads if kv_heads is None else kv_heads
        if depth < 1 or heads < 1 or kv_heads < 1:
            raise ValueError(
                f"depth, heads and kv_heads must be at least 1; got {depth}, {heads}, {kv_heads}."
            )
        if hidden_size % (2 * heads) != 0:
            raise ValueError(
                f"hidden_size must be a multiple of 2 * heads = {2 * heads}, since each head "
                f"turns pairs of features; got {hidden_size}."
            )
        if heads % kv_heads != 0:
            raise ValueError(f"kv_heads must divide heads = {heads}; got {kv_heads}.")
        if rope_theta <= 0:
            raise ValueError(f"rope_theta must be positive; got {rope_theta}.")
        self.kv_heads = kv_heads
        self.head_dim = hidden_size // heads
        self.rope_theta = rope_theta
        self.layers = nn.ModuleList(
            TransformerLayer(hidden_size, heads=heads, kv_heads=kv_heads, ff_size=ff_size)
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the module's docstring says."""
        scaled_normal_(self)
        gain = 1 / math.sqrt(2 * len(self.layers))
        for module in self.modules():
            if isinstance(module, SelfAttention):
                scaled_normal_(module.output, gain=gain)
            elif isinstance(module, SwiGLU):
                scaled_normal_(module.down, gain=gain)

    @typed
    def forward(
        self,
        vectors: Float[Tensor, "batch positions hidden"],
        mask: AttentionMask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch positions hidden"]:
        """Compute the hidden states; see `Backbone.forward`.

        Raises:
            ValueError: If both mask and cache are given, the cache is not one of `new_cache`, or
                the features are not `hidden_size`.
        """
        self._check_input(vectors, mask, cache)
        if cache is not None and not isinstance(cache, KVCache):
            raise ValueError(
                f"cache must be a KVCache, as new_cache makes; got {type(cache).__name__}."
            )
        positions = vectors.shape[1]
        if cache is not None:
            mask = AttentionMask.cached(cache.lengths + positions)
        elif mask is None:
            mask = AttentionMask.causal()
        angles = rotary_angles(
            mask.positions(positions, vectors.device), self.head_dim, theta=self.rope_theta
        )
        x = vectors
        for index, layer in enumerate(self.layers):
            x = layer(x, angles, mask, cache, index)
        if cache is not None:
            cache.advance(positions)
        return self.norm(x)

    def new_cache(self, batch_size: int, capacity: int) -> KVCache:
        """An empty key/value cache; see `Backbone.new_cache`."""
        weight = next(self.layers.parameters())
        shape = (len(self.layers), batch_size, capacity, self.kv_heads, self.head_dim)
        return KVCache(
            weight.new_zeros(shape),
            weight.new_zeros(shape),
            torch.zeros(batch_size, dtype=torch.long, device=weight.device),
        )


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each normalised before and added to the stream."""

    def __init__(
        self, hidden_size: int, *, heads: int, kv_heads: int, ff_size: int | None
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.attention = SelfAttention(hidden_size, heads=heads, kv_heads=kv_heads)
        self.feed_forward_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.feed_forward = SwiGLU(hidden_size, ff_size)

    def forward(
        self, x: Tensor, angles: Tensor, mask: AttentionMask, cache: KVCache | None, index: int
    ) -> Tensor:
        """Apply the layer; `index` is its place in the cache."""
        x = x + self.attention(self.attention_norm(x), angles, mask, cache, index)
        return x + self.feed_forward(self.feed_forward_norm(x))


class SelfAttention(nn.Module):
    """Projections, rotation, cache and attention of one layer."""

    def __init__(self, hidden_size: int, *, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.head_dim = hidden_size // heads
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(hidden_size, kv_heads * self.head_dim, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(
        self, x: Tensor, angles: Tensor, mask: AttentionMask, cache: KVCache | None, index: int
    ) -> Tensor:
        """Attend from each position of `x` to what the mask shows of it and of the cache."""
        split = "batch length (heads head_dim) -> batch length heads head_dim"
        q = apply_rotary(rearrange(self.query(x), split, head_dim=self.head_dim), angles)
        k = apply_rotary(rearrange(self.key(x), split, head_dim=self.head_dim), angles)
        v = rearrange(self.value(x), split, head_dim=self.head_dim)
        if cache is not None:
            cache.append(index, k, v)
            k, v = cache.keys[index], cache.values[index]
        out = attention(q, k, v, mask)
        return self.output(
            rearrange(out, "batch length heads head_dim -> batch length (heads head_dim)")
        )
