r"""A pre-norm layer with attention to a memory (cross-attention).

    x <- x + attention(norm(x), norm(memory)),    x <- x + swiglu(norm(x))

With x as its own memory it is self-attention without a mask. It has no positional embedding: the
vectors must encode their own places.

Source: Vaswani et al., "Attention Is All You Need", arXiv 1706.03762; pre-norm, as in Llama.
"""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.attention import AttentionMask, attention
from calmkit.nn import SwiGLU, scaled_normal_
from calmkit.typing import typed

__all__ = ["AttendingLayer"]

_ALL = AttentionMask.full()


class AttendingLayer(nn.Module):
    """Attention to a memory and feed-forward, each with a norm before it, added to x."""

    def __init__(self, width: int, *, heads: int) -> None:
        """Build the layer.

        Args:
            width: Features of x and of the memory.
            heads: Number of attention heads; it divides `width`.
        """
        super().__init__()
        self.heads = heads
        self.norm, self.memory_norm, self.feed_forward_norm = (
            nn.RMSNorm(width, eps=1e-6) for _ in range(3)
        )
        self.query, self.key, self.value, self.output = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.feed_forward = SwiGLU(width)

    def scale_branches(self, gain: float) -> None:
        """Initialise the output layers of both branches with a gain."""
        for branch in (self.output, self.feed_forward.down):
            scaled_normal_(branch, gain=gain)

    @typed
    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        memory: Float[Tensor, "batch memories width"],
    ) -> Float[Tensor, "batch length width"]:
        """Attend from every vector of `x` to the whole memory."""
        read = self.memory_norm(memory)
        q, k, v = (
            rearrange(
                projected,
                "batch length (heads head_dim) -> batch length heads head_dim",
                heads=self.heads,
            )
            for projected in (self.query(self.norm(x)), self.key(read), self.value(read))
        )
        out = attention(q, k, v, _ALL)
        x = x + self.output(
            rearrange(out, "batch length heads head_dim -> batch length (heads head_dim)")
        )
        return x + self.feed_forward(self.feed_forward_norm(x))
