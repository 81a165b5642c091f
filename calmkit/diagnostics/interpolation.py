r"""What lies between two chunks?

    z_t = (1 - t) a + t b,    t = 0, 1/n, ..., 1,

decoded at each step. In a smooth space the text goes over from one end to the other, place by
place. Tokens that neither end has at their place are *foreign*: the more, the more ragged the
space, and the more a small error of a head changes the text.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.typing import typed

from .base import Diagnostic

__all__ = ["Interpolation", "interpolate"]

_MOST_FOREIGN = 0.5


@typed
@dataclass(frozen=True, eq=False)
class Interpolation(Diagnostic):
    """Decoded interpolations from some latents to others.

    Attributes:
        tokens: At each step; the first and the last are the ends.
    """

    tokens: Int[Tensor, "steps *batch chunk"]

    @property
    def foreign(self) -> float:
        """Share of tokens between the ends that neither end has at that place."""
        between, first, last = self.tokens[1:-1], self.tokens[0], self.tokens[-1]
        return float(((between != first) & (between != last)).double().mean())

    @property
    def is_bad(self) -> bool:
        """Half of what lies between is foreign."""
        return self.foreign > _MOST_FOREIGN

    @property
    def summary(self) -> str:
        """The share of foreign tokens."""
        return f"{self.foreign:.1%} of tokens between two chunks are of neither"

    @property
    def meaning(self) -> str:
        """What a bad value means."""
        return (
            "the latent space is ragged, a small error of the head gives unrelated text; give "
            "the autoencoder more noise or dropout on its latents"
        )


@typed
@torch.no_grad()
def interpolate(
    autoencoder: ChunkAutoencoder,
    first: Float[Tensor, "*batch latent"],
    last: Float[Tensor, "*batch latent"],
    *,
    steps: int = 7,
) -> Interpolation:
    """Decode the straight way between latents; see the module.

    Args:
        autoencoder: Decodes.
        first: Latents a, at t = 0.
        last: Latents b, at t = 1.
        steps: Points on the way, with both ends; at least 3.

    Raises:
        ValueError: If there is nothing between the ends.
    """
    if steps < 3:
        raise ValueError(f"steps must be at least 3, with both ends; got {steps}.")
    # Not lerp: at t = 1 it would be b only up to rounding.
    places = [step / (steps - 1) for step in range(steps)]
    way = torch.stack([(1 - t) * first + t * last for t in places])
    return Interpolation(autoencoder.decode_tokens(way))
