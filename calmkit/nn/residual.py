r"""Residual MLP: a deterministic map between vectors.

    x_0 = W_in x,    x <- x + swiglu(norm(x))   (depth times),    y = W_out norm(x),

with RMS normalisation. Each branch is initialised to 1 / sqrt(depth) of its input's scale, so that
the sum grows little with depth, and y has unit variance for all sizes.

Source: the autoencoder of arXiv 2510.27688 consists of these blocks.
"""

import math

from jaxtyping import Float
from torch import Tensor, nn

from calmkit.bounds import check_at_least
from calmkit.typing import typed

from .initialization import scaled_normal_
from .swiglu import SwiGLU

__all__ = ["ResidualBlock", "ResidualMLP"]


class ResidualBlock(nn.Module):
    """`x + swiglu(norm(x))`."""

    def __init__(self, width: int, ff_size: int | None = None, *, norm_eps: float = 1e-6) -> None:
        """Build the block.

        Args:
            width: Features in and out.
            ff_size: Hidden features; see `SwiGLU`.
            norm_eps: Added to the mean square in the norm.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=norm_eps)
        self.feed_forward = SwiGLU(width, ff_size)

    @typed
    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Add the block's branch."""
        return x + self.feed_forward(self.norm(x))


class ResidualMLP(nn.Module):
    """Maps a vector to another, for instance a condition to the parameters of a distribution."""

    def __init__(self, in_size: int, out_size: int, *, width: int, depth: int) -> None:
        """Build the network; its output initially has about unit variance.

        Args:
            in_size: Features of the input.
            out_size: Features of the output.
            width: Features of the hidden layers.
            depth: Number of residual blocks.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__()
        check_at_least(1, in_size=in_size, out_size=out_size, width=width, depth=depth)
        self.input = nn.Linear(in_size, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.output_norm = nn.RMSNorm(width, eps=1e-6)
        self.output = nn.Linear(width, out_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as described in the module docstring."""
        scaled_normal_(self)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                scaled_normal_(module.feed_forward.down, gain=1 / math.sqrt(len(self.blocks)))
            elif isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)

    @typed
    def forward(self, x: Float[Tensor, "*batch in_size"]) -> Float[Tensor, "*batch out_size"]:
        """Evaluate the network."""
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        return self.output(self.output_norm(x))
