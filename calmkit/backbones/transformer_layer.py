r"""One layer of the Transformer: attention and feed-forward on a residual stream.

    x <- x + attention(norm(x)),    x <- x + swiglu(norm(x))

Queries and keys are projected, optionally normalised (arXiv 2302.05442), and rotated by their
positions. Keys and values may include those of a cache.
"""

from torch import Tensor, nn

from calmkit.attention import AttentionMask, KVCache, attention
from calmkit.nn import SwiGLU

from .rotary import Rotation, apply_rotary

__all__ = ["SelfAttention", "TransformerLayer"]


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each with a norm before it, added to the residual stream."""

    def __init__(
        self,
        hidden_size: int,
        *,
        heads: int,
        kv_heads: int,
        ff_size: int | None,
        norm_eps: float,
        qk_norm: bool,
        attention_backend: str,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(hidden_size, eps=norm_eps)
        self.attention = SelfAttention(
            hidden_size,
            heads=heads,
            kv_heads=kv_heads,
            norm_eps=norm_eps,
            qk_norm=qk_norm,
            attention_backend=attention_backend,
        )
        self.feed_forward_norm = nn.RMSNorm(hidden_size, eps=norm_eps)
        self.feed_forward = SwiGLU(hidden_size, ff_size)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        cache: KVCache | None,
        index: int,
    ) -> Tensor:
        """Apply the layer; `index` is its index in the cache."""
        x = x + self.attention(self.attention_norm(x), rotation, mask, cache, index)
        return x + self.feed_forward(self.feed_forward_norm(x))


class SelfAttention(nn.Module):
    """Projections, norms, rotation, cache and attention of one layer."""

    def __init__(
        self,
        hidden_size: int,
        *,
        heads: int,
        kv_heads: int,
        norm_eps: float,
        qk_norm: bool,
        attention_backend: str,
    ) -> None:
        super().__init__()
        self.head_dim = hidden_size // heads
        self.backend = attention_backend
        self.query = nn.Linear(hidden_size, hidden_size, bias=False)
        self.key = nn.Linear(hidden_size, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(hidden_size, kv_heads * self.head_dim, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.query_norm, self.key_norm = (
            nn.RMSNorm(self.head_dim, eps=norm_eps) if qk_norm else nn.Identity() for _ in range(2)
        )

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        mask: AttentionMask,
        cache: KVCache | None,
        index: int,
    ) -> Tensor:
        """Attend from each position of `x` to the visible positions of `x` and of the cache."""
        # To (batch, length, heads, head_dim), which the compiler reads faster than einops.
        q, k, v = (
            projected.unflatten(-1, (-1, self.head_dim))
            for projected in (self.query(x), self.key(x), self.value(x))
        )
        q = apply_rotary(self.query_norm(q), rotation)
        k = apply_rotary(self.key_norm(k), rotation)
        if cache is not None:
            k, v = cache.append(index, k, v)
        out = attention(q, k, v, mask, backend=self.backend)
        return self.output(out.flatten(-2))
