"""SwiGLU feed-forward: down(silu(gate(x)) * up(x)).

Source: Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from calmkit.bounds import check_at_least
from calmkit.typing import typed

__all__ = ["SwiGLU"]


class SwiGLU(nn.Module):
    """Feed-forward layer with a gated hidden layer, without biases."""

    def __init__(self, size: int, ff_size: int | None = None) -> None:
        """Build the layer.

        Args:
            size: Features in and out.
            ff_size: Hidden features; `8/3 size` rounded up to a multiple of 8 if None, which
                costs as much as an ungated layer of `4 size`.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__()
        ff_size = -(-size // 3) * 8 if ff_size is None else ff_size
        check_at_least(1, size=size, ff_size=ff_size)
        self.gate = nn.Linear(size, ff_size, bias=False)
        self.up = nn.Linear(size, ff_size, bias=False)
        self.down = nn.Linear(ff_size, size, bias=False)

    @typed
    def forward(self, x: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """`down(silu(gate(x)) * up(x))`."""
        return self.down(silu(self.gate(x)) * self.up(x))
