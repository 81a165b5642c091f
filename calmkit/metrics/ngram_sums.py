r"""Sums of hits and collisions over n-grams: every Brier score is a ratio of them.

For the n-gram y that starts at place i of a chunk, and draws x, x' of it,

    hit = P(x = y),    collision = P(x = x'),    Brier-n = 2 hit - collision.

Both are summed separately for each group (document), n and place, together with the number of
n-grams that count. These start in the predicted chunk, are text throughout, and lie inside the
drawn text. Sums over different texts or processes can be added.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from calmkit.typing import typed

from .brier import ngram_rates
from .document_scores import DocumentScores

__all__ = ["NgramSums", "counted_ngrams"]


@typed
@dataclass(frozen=True, eq=False)
class NgramSums:
    """Sums in float64.

    Attributes:
        hits: Sums of hit rates.
        collisions: Sums of collision rates.
        counts: Number of n-grams in both sums.
    """

    hits: Float[Tensor, "groups orders places"]
    collisions: Float[Tensor, "groups orders places"]
    counts: Float[Tensor, "groups orders places"]

    @staticmethod
    def zeros(groups: int, highest_order: int, chunk_size: int) -> "NgramSums":
        """Nothing counted yet."""
        empty = torch.zeros(groups, highest_order, chunk_size, dtype=torch.float64)
        return NgramSums(empty, empty, empty)

    @staticmethod
    @typed
    def of_draws(
        draws: Int[Tensor, "samples points tokens"],
        target: Int[Tensor, "points tokens"],
        counted: Bool[Tensor, "points orders places"],
        group: Int[Tensor, " points"],
        groups: int,
    ) -> "NgramSums":
        """Sum over all pairs of draws at each point.

        Args:
            draws: Independent draws of the tokens from the predicted chunk on, at least two.
            target: The true tokens.
            counted: From `counted_ngrams`.
            group: Index of each point's group.
            groups: Number of groups.

        Raises:
            ValueError: If there are fewer than two draws.
        """
        highest_order, chunk_size = counted.shape[1:]
        hits, collisions = [], []
        for n in range(1, highest_order + 1):
            last = chunk_size + n - 1  # no n-gram that starts in the chunk reaches further
            rates = ngram_rates(draws[..., :last], target[:, :last], n)
            missing = (0, chunk_size - rates[0].shape[1])
            hits.append(pad(rates[0], missing))
            collisions.append(pad(rates[1], missing))
        tables = torch.stack(hits, dim=1), torch.stack(collisions, dim=1)
        return NgramSums.over(*tables, counted, group, groups)

    @staticmethod
    @typed
    def over(
        hits: Float[Tensor, "points orders places"],
        collisions: Float[Tensor, "points orders places"],
        counted: Bool[Tensor, "points orders places"],
        group: Int[Tensor, " points"],
        groups: int,
    ) -> "NgramSums":
        """Sum rates over the points of each group.

        Args:
            hits: Hit rate at each point, for each n and place.
            collisions: Collision rates, likewise.
            counted: Which of them count.
            group: Index of each point's group.
            groups: Number of groups.
        """
        empty = torch.zeros(groups, *hits.shape[1:], dtype=torch.float64, device=hits.device)
        sums = (
            empty.index_add(0, group.long(), torch.where(counted, x, 0.0).double())
            for x in (hits, collisions, torch.ones_like(hits))
        )
        return NgramSums(*sums)

    def __add__(self, other: "NgramSums") -> "NgramSums":
        """Sums over the text of both."""
        return NgramSums(
            self.hits + other.hits, self.collisions + other.collisions, self.counts + other.counts
        )

    @property
    def seen(self) -> Bool[Tensor, " groups"]:
        """Groups in which any token counts."""
        return self.counts[:, 0].sum(dim=-1) > 0

    def counted_groups(self) -> "NgramSums":
        """The sums without groups in which no token counts."""
        tables = self.hits, self.collisions, self.counts
        return NgramSums(*(table[self.seen] for table in tables))

    def scores(
        self, groups: tuple[int, ...], unit: Literal["documents", "rows"]
    ) -> DocumentScores:
        """`brier_1`, ..., `hit_1`, ..., `collision_1`, ..., over all places of a chunk.

        Args:
            groups: See `DocumentScores`.
            unit: See `DocumentScores`.
        """
        hits, collisions, counts = (
            x.sum(dim=-1) for x in (self.hits, self.collisions, self.counts)
        )
        orders = range(1, hits.shape[1] + 1)
        return DocumentScores(
            names=tuple(f"{kind}_{n}" for kind in ("brier", "hit", "collision") for n in orders),
            sums=torch.cat([2 * hits - collisions, hits, collisions], dim=1),
            counts=counts.repeat(1, 3),
            groups=groups,
            unit=unit,
        )


@typed
def counted_ngrams(
    valid: Bool[Tensor, "points tokens"], highest_order: int, chunk_size: int
) -> Bool[Tensor, "points orders places"]:
    """Which n-grams count: those that start in the chunk and whose n tokens are all valid.

    Args:
        valid: Which of the tokens from the predicted chunk on are text.
        highest_order: The largest n.
        chunk_size: K, the number of places at which an n-gram may start.
    """
    padded = pad(valid, (0, highest_order))  # tokens beyond the drawn ones do not count
    whole = [padded.unfold(-1, n, 1).all(dim=-1) for n in range(1, highest_order + 1)]
    return torch.stack([x[:, :chunk_size] for x in whole], dim=1)
