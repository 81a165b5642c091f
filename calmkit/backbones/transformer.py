r"""Pre-norm Transformer decoder in the style of Llama.

    x <- x + attention(norm(x)),    x <- x + swiglu(norm(x)),    output norm(x)

with RMSNorm, rotary positions, grouped-query attention and no biases. Queries and keys may also be
normalised (arXiv 2302.05442, as in Qwen 3). Weights are drawn from N(0, 1 / fan_in). Those that
write into the residual stream have an additional factor `1 / sqrt(2 depth)` (Radford et al.,
"Language Models are Unsupervised Multitask Learners", section 2.3), so that the stream's variance
does not grow with depth.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from calmkit.attention import AttentionMask, KVCache, check_backend
from calmkit.bounds import check_at_least, check_in, check_positive
from calmkit.nn import SwiGLU, scaled_normal_
from calmkit.private_torch import in_transform
from calmkit.typing import typed

from .base import Backbone, Cache
from .rope_scaling import RopeScaling
from .rotary import rotation_at
from .transformer_layer import SelfAttention, TransformerLayer

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
        rope_scaling: RopeScaling | None = None,
        norm_eps: float = 1e-6,
        qk_norm: bool = False,
        activation_checkpointing: bool = False,
        attention_backend: str = "auto",
    ) -> None:
        """Build the layers.

        Args:
            hidden_size: Features of input vectors and hidden states.
            depth: Number of layers.
            heads: Query heads of each layer.
            kv_heads: Key/value heads; as many as query heads if None.
            ff_size: Hidden features of the feed-forward layers; see `SwiGLU`.
            rope_theta: Base of the rotary wavelengths.
            rope_scaling: Changes the rotary rates, for longer texts; no change if None.
            norm_eps: Added to the mean square under a norm's root.
            qk_norm: Whether to normalise queries and keys of each head, which keeps attention
                from saturating in long trainings.
            activation_checkpointing: Whether to recompute layers in the backward pass instead of
                storing their activations: a third more computation, far less memory.
            attention_backend: See `attention`. Weights do not depend on it.

        Raises:
            ValueError: If the heads do not divide the features, a size is out of range, or there
                is no backend of that name.
        """
        super().__init__(hidden_size)
        kv_heads = heads if kv_heads is None else kv_heads
        check_at_least(1, depth=depth, heads=heads, kv_heads=kv_heads)
        if hidden_size % (2 * heads) != 0:
            raise ValueError(
                f"hidden_size must be a multiple of 2 * heads = {2 * heads}, since each head "
                f"rotates pairs of features; got {hidden_size}."
            )
        if heads % kv_heads != 0:
            raise ValueError(f"kv_heads must divide heads = {heads}; got {kv_heads}.")
        check_positive(rope_theta=rope_theta)
        check_in("[0, inf)", norm_eps=norm_eps)
        check_backend(attention_backend)
        self.kv_heads = kv_heads
        self.head_dim = hidden_size // heads
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.activation_checkpointing = activation_checkpointing
        self.layers = nn.ModuleList(
            TransformerLayer(
                hidden_size,
                heads=heads,
                kv_heads=kv_heads,
                ff_size=ff_size,
                norm_eps=norm_eps,
                qk_norm=qk_norm,
                attention_backend=attention_backend,
            )
            for _ in range(depth)
        )
        self.norm = nn.RMSNorm(hidden_size, eps=norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as described in the module docstring."""
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
        """Compute the hidden states; see `Backbone.forward`."""
        mask = self._check_input(vectors, mask, cache)
        cache = self._own_cache(cache, KVCache)
        positions = vectors.shape[1]
        rotation = rotation_at(
            mask.positions(positions, vectors.device),
            self.head_dim,
            theta=self.rope_theta,
            scaling=self.rope_scaling,
        )
        x = vectors
        recompute = self.activation_checkpointing and cache is None and torch.is_grad_enabled()
        recompute = recompute and not in_transform()  # transforms do not support checkpointing
        for index, layer in enumerate(self.layers):
            if recompute:
                x = checkpoint(layer, x, rotation, mask, cache, index, use_reentrant=False)
            else:
                x = layer(x, rotation, mask, cache, index)
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
