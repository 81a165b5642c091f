r"""Accuracy of the next chunk's tokens without the head's noise.

The mean of many samples is the head's best single guess of the latent. Its decoded tokens y^ have

    accuracy = mean over points and places k of [y^_k = y_k].

It is compared with single draws, decoded with their noise, and with always guessing the most
frequent token of the same points. The mean of several plausible latents need not be plausible: if
the next chunk is uncertain, the mean may decode to none of them, and single draws do better.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.metrics import Estimate
from calmkit.typing import typed

from .base import Diagnostic
from .groups import mean_over_groups

__all__ = ["NextChunkAccuracy", "next_chunk_accuracy"]


@dataclass(frozen=True)
class NextChunkAccuracy(Diagnostic):
    """Share of the next chunk's tokens that are right; higher is better.

    Attributes:
        of_mean: Accuracy of the mean of the samples.
        of_draws: Accuracy of single samples.
        by_place: `of_mean` at each place of the chunk.
        most_frequent: Accuracy of guessing one token everywhere.
    """

    of_mean: Estimate
    of_draws: Estimate
    by_place: tuple[float, ...]
    most_frequent: float

    meaning = (
        "the head's best guess is worse than a constant; accuracy that falls from left to "
        "right is normal, accuracy near zero everywhere means latents far from any chunk"
    )

    @property
    def is_bad(self) -> bool:
        """Whether neither beats the most frequent token."""
        return max(self.of_mean.value, self.of_draws.value) <= self.most_frequent

    @property
    def summary(self) -> str:
        """The three shares."""
        places = ", ".join(f"{share:.1%}" for share in self.by_place)
        return (
            f"next-chunk tokens right: {self.of_mean.value:.1%} ± "
            f"{self.of_mean.standard_error:.1%} from the mean sample ({places} by place), "
            f"{self.of_draws.value:.1%} from single draws, {self.most_frequent:.1%} by the most "
            "frequent token"
        )


@typed
@torch.no_grad()
def next_chunk_accuracy(
    autoencoder: ChunkAutoencoder,
    samples: Float[Tensor, "samples points latent"],
    tokens: Int[Tensor, "points chunk"],
    groups: Int[Tensor, " points"],
) -> NextChunkAccuracy:
    """Measure next-chunk accuracy; see the module docstring.

    Args:
        autoencoder: Decodes the samples.
        samples: The head's samples at each point; more give a better mean.
        tokens: The true chunk at each point.
        groups: Document or row of each point, for the standard errors.

    Raises:
        ValueError: If there are fewer than two groups.
    """
    right = (autoencoder.decode_tokens(samples.mean(dim=0)) == tokens).double()
    drawn = (autoencoder.decode_tokens(samples) == tokens).double()
    return NextChunkAccuracy(
        of_mean=mean_over_groups(right.mean(dim=-1), groups),
        of_draws=mean_over_groups(drawn.mean(dim=(0, -1)), groups),
        by_place=tuple(right.mean(dim=0).tolist()),
        most_frequent=float(tokens.flatten().bincount().max() / tokens.numel()),
    )
