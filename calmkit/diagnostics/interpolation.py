r"""Decoded interpolations between two latents.

    z_t = (1 - t) a + t b,    t = 0, 1/n, ..., 1

In a smooth latent space the decoded text changes from one end to the other, place by place. Tokens
that neither end has at their place are *foreign*. The more there are, the more irregular the space
is, and the more a small error of a head changes the text.
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
        tokens: The tokens at each step; the first and last steps are the ends.
    """

    tokens: Int[Tensor, "steps *batch chunk"]

    meaning = (
        "the latent space is irregular, and a small error of the head gives unrelated text; "
        "train the autoencoder with more noise or dropout on its latents"
    )

    @property
    def foreign(self) -> float:
        """Share of tokens between the ends that neither end has at the same place."""
        between, first, last = self.tokens[1:-1], self.tokens[0], self.tokens[-1]
        return float(((between != first) & (between != last)).double().mean())

    @property
    def is_bad(self) -> bool:
        """Whether more than half of the tokens between the ends are foreign."""
        return self.foreign > _MOST_FOREIGN

    @property
    def summary(self) -> str:
        """The share of foreign tokens."""
        return f"{self.foreign:.1%} of tokens between two chunks are in neither of them"


@typed
@torch.no_grad()
def interpolate(
    autoencoder: ChunkAutoencoder,
    first: Float[Tensor, "*batch latent"],
    last: Float[Tensor, "*batch latent"],
    *,
    steps: int = 7,
) -> Interpolation:
    """Decode linear interpolations between latents; see the module docstring.

    Args:
        autoencoder: Decodes the latents.
        first: Latents a, at t = 0.
        last: Latents b, at t = 1.
        steps: Number of steps, including both ends; at least 3.

    Raises:
        ValueError: If there is nothing between the ends.
    """
    if steps < 3:
        raise ValueError(f"steps must be at least 3, including both ends; got {steps}.")
    # Not lerp, which at t = 1 is b only up to rounding.
    times = [step / (steps - 1) for step in range(steps)]
    latents = torch.stack([(1 - t) * first + t * last for t in times])
    return Interpolation(autoencoder.decode_tokens(latents))
