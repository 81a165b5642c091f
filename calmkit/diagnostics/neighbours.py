r"""Whether the head's samples are near latents of real text.

The nearest chunks of a latent z are those whose posterior means m_j are nearest,

    d(z) = min_j ||z - m_j||,

over a bank of real chunks. Real latents (posterior draws of chunks outside the bank) give
distances to compare with. If the head's are much larger, its samples are far from all text, where
the decoder was never trained.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

from .base import Diagnostic

__all__ = ["NearestChunks", "nearest_chunks"]

_FAR = 1.5


@typed
@dataclass(frozen=True, eq=False)
class NearestChunks(Diagnostic):
    """The chunks of a bank that are nearest to some latents, nearest first.

    Attributes:
        index: Their indices in the bank.
        distance: Distances to their means, in units of the latents.
        real_distance: Distances of real latents to their nearest chunk.
    """

    index: Int[Tensor, "points nearest"]
    distance: Float[Tensor, "points nearest"]
    real_distance: Float[Tensor, " reals"]

    meaning = (
        "samples are far from latents of text, where the decoder was never trained, and their "
        "tokens are arbitrary; the head needs more steps, or a finer solver"
    )

    @property
    def ratio(self) -> float:
        """Median distance to the nearest chunk, divided by that of real latents."""
        return float(self.distance[:, 0].median() / self.real_distance.median())

    @property
    def is_bad(self) -> bool:
        """Whether samples are more than 1.5 times as far as real latents."""
        return not self.ratio <= _FAR

    @property
    def summary(self) -> str:
        """Both medians."""
        return (
            f"samples are {float(self.distance[:, 0].median()):.3g} from the nearest real chunk, "
            f"real latents {float(self.real_distance.median()):.3g} (medians)"
        )


@typed
@torch.no_grad()
def nearest_chunks(
    latents: Float[Tensor, "points latent"],
    real: Float[Tensor, "reals latent"],
    bank: Float[Tensor, "chunks latent"],
    *,
    count: int = 3,
) -> NearestChunks:
    """Find the nearest chunks of latents; see the module docstring.

    Args:
        latents: Samples of a head, or any latents.
        real: Posterior draws of chunks that are not in the bank.
        bank: Posterior means of real chunks.
        count: Number of chunks to find for each latent.

    Raises:
        ValueError: If the bank has fewer than `count` chunks, or a set is empty.
    """
    if not 1 <= count <= len(bank):
        raise ValueError(f"count must be in [1, {len(bank)}], the bank's chunks; got {count}.")
    if len(latents) == 0 or len(real) == 0:
        raise ValueError(
            f"latents and real must not be empty; got {len(latents)} and {len(real)}."
        )
    found = _distances(latents, bank).topk(count, largest=False)
    return NearestChunks(found.indices, found.values, _distances(real, bank).amin(dim=-1))


def _distances(points: Tensor, bank: Tensor) -> Tensor:
    return torch.cdist(points, bank, compute_mode="donot_use_mm_for_euclid_dist")
