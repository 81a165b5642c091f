r"""How many tokens of the next chunk are right, without the head's noise?

The mean of many samples is the head's best single guess of the latent; decoded, its tokens y^ give

    accuracy = mean over points and places k of [y^_k = y_k].

Beside it stand single draws, decoded with their noise, and always guessing the token that is most
frequent at the same points. The mean of several plausible latents need not be one: where the
next chunk is open, the mean may decode to none of them, and single draws do better.
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
        of_mean: From the mean of the samples.
        of_draws: From single samples.
        by_place: `of_mean` at each place of the chunk.
        most_frequent: Of guessing one token everywhere.
    """

    of_mean: Estimate
    of_draws: Estimate
    by_place: tuple[float, ...]
    most_frequent: float

    @property
    def is_bad(self) -> bool:
        """Neither beats the most frequent token."""
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

    @property
    def meaning(self) -> str:
        """What a bad value means."""
        return (
            "the head's best guess is worth less than a constant; places that get worse from "
            "left to right are normal, all near zero mean that latents are not near any chunk"
        )


@typed
@torch.no_grad()
def next_chunk_accuracy(
    autoencoder: ChunkAutoencoder,
    samples: Float[Tensor, "samples points latent"],
    tokens: Int[Tensor, "points chunk"],
    groups: Int[Tensor, " points"],
) -> NextChunkAccuracy:
    """Measure next-chunk accuracy; see the module.

    Args:
        autoencoder: Decodes the samples.
        samples: The head's at each point; the more, the better their mean.
        tokens: The chunk that came.
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
