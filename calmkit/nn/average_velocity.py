r"""The network of the one-step heads: the average velocity u(x, t, e) between two times.

    u = adaptive MLP of x, modulated by silu(a(t) + b(e - t) + W cond),

with time embeddings a and b. It also computes its derivative along any direction of (x, t, e).
"""

from jaxtyping import Float
from torch import Tensor, nn

from calmkit.typing import typed

from .adaln import AdaptiveMLP, TimeEmbedding
from .dual import Dual
from .initialization import scaled_normal_

__all__ = ["AverageVelocity"]

# Sinusoids of 1000 t, as elsewhere, vary too fast to be differentiated: a head trained on their
# derivative ends far from its target. Values between 3 and 30 worked best in measurements.
_RESOLUTION = 10.0


class AverageVelocity(nn.Module):
    """The network u(x, t, e, cond): an adaptive MLP that embeds the time and the span e - t."""

    def __init__(self, cond_size: int, latent_size: int, *, width: int, depth: int) -> None:
        """Build the network; its output is initially zero.

        Args:
            cond_size: Features of the condition.
            latent_size: Dimensions of `x` and of the output.
            width: Features of the hidden layers.
            depth: Number of residual blocks.
        """
        super().__init__()
        self.network = AdaptiveMLP(
            cond_size, latent_size, latent_size, width=width, depth=depth, resolution=_RESOLUTION
        )
        self.span_embedding = TimeEmbedding(width, resolution=_RESOLUTION)
        scaled_normal_(self.span_embedding)

    @typed
    def forward(
        self,
        x: Float[Tensor, "samples *batch latent"],
        time: Float[Tensor, "#samples *#batch"],
        end: Float[Tensor, "#samples *#batch"],
        cond: Float[Tensor, "*batch cond"],
    ) -> Float[Tensor, "samples *batch latent"]:
        """Average velocity from `time` to `end` of the paths that are at `x` at `time`.

        Args:
            x: One input per sample and position.
            time: Start of the average; an axis of size 1 if samples share it.
            end: End of the average.
            cond: Condition of each position.
        """
        net = self.network
        times = net.time_embedding(time) + self.span_embedding(end - time)
        return net.modulated(x, times + net.cond_embedding(cond))

    @typed
    def dual(self, x: Dual, time: Dual, end: Dual, cond: Float[Tensor, "*batch cond"]) -> Dual:
        """`forward` and its derivative along the tangents of `x`, `time` and `end`."""
        net = self.network
        times = net.time_embedding.dual(time) + self.span_embedding.dual(end - time)
        return net.modulated_dual(x, times.plus(net.cond_embedding(cond)))
