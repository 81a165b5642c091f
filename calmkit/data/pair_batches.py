r"""Rows of chunks for fine-tuning: pairs packed side by side, only responses scored.

Each pair is laid on the grid with its response at a chunk's edge (`chunk_pair`). The pairs, the
longest first, go to rows of `positions` chunks by *best fit*: each to the row with the least room
that still takes it. What is left of a row is one run of empty chunks.

    row      [ . p p p ][ r r r end ] | [ . . . q ][ s s s s ][ end . . . ] | [ . . . . ]
    scored        -          yes             -         yes         yes           -

How lengths are packed is the same in every epoch. Which of the pairs of one length fills which of
their places, and the order of the rows, is drawn anew. All of it is a pure function of
(seed, step): nothing has to be saved to resume.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from calmkit.chunking import ChunkBatch, chunk_pair

from .batches import check_sizes
from .pairs import TokenPair

__all__ = ["PairBatches"]


@dataclass(frozen=True, eq=False)
class _Epoch:
    """The random choices of one epoch."""

    number: int
    pairs: np.ndarray  # the pair in each place of the packing
    rows: np.ndarray  # the packing's rows, in the order of the batches' rows


class PairBatches:
    """An endless sequence of batches of pairs, each a pure function of (seed, step).

    Args:
        pairs: At least one pair.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        batch_size: Rows in a batch.
        seed: The same seed gives the same batches.
        end_id: Put after each response, and on padding and fill.

    Attributes:
        rows_per_epoch: Rows that go once through the pairs.

    Raises:
        ValueError: If a size is below 1, the seed is negative, or there is no pair or one that is
            longer than a row.
    """

    def __init__(
        self,
        pairs: Sequence[TokenPair],
        *,
        chunk_size: int,
        positions: int,
        batch_size: int,
        seed: int,
        end_id: int,
    ) -> None:
        check_sizes(chunk_size=chunk_size, positions=positions, batch_size=batch_size, seed=seed)
        if not pairs:
            raise ValueError("pairs must hold at least one pair; got none.")
        self.pairs = pairs
        self.chunk_size = chunk_size
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.end_id = end_id
        # The response's end token counts too.
        self._lengths = np.array(
            [-(-len(p.prompt) // chunk_size) - (-(len(p.response) + 1) // chunk_size)
             for p in pairs]
        )  # fmt: skip
        self._refuse_long_pairs()
        self._packing = _best_fit(np.sort(self._lengths)[::-1], positions)
        self.rows_per_epoch = len(self._packing)
        self._epoch = self._draw_epoch(0)

    def batch_at(self, step: int) -> ChunkBatch:
        """The batch of one step; every call with this step gives the same.

        Args:
            step: Number of the step, from 0 on.

        Raises:
            ValueError: If the step is negative.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0; got {step}.")
        shape = (self.batch_size, self.positions, self.chunk_size)
        tokens = torch.full(shape, self.end_id)
        real = torch.zeros(shape, dtype=torch.bool)
        scored = torch.zeros(shape[:2], dtype=torch.bool)
        packed = []
        for row in range(self.batch_size):
            lengths = []
            written = 0
            for pair in self._pairs_of_row(step * self.batch_size + row):
                laid = chunk_pair(
                    pair.prompt.tolist(),
                    pair.response.tolist(),
                    self.chunk_size,
                    fill_id=self.end_id,
                    end_id=self.end_id,
                )
                place = slice(written, written + len(laid[0]))
                tokens[row, place], real[row, place], scored[row, place] = laid
                lengths.append(len(laid[0]))
                written = place.stop
            rest = self.positions - written
            packed.append((*lengths, rest) if rest else tuple(lengths))
        return ChunkBatch(tokens, real, tuple(packed), scored)

    def _pairs_of_row(self, index: int) -> list[TokenPair]:
        """The pairs in row `index` of the endless sequence."""
        number, place = divmod(index, self.rows_per_epoch)
        epoch = self._epoch
        if epoch.number != number:
            self._epoch = epoch = self._draw_epoch(number)
        places = self._packing[int(epoch.rows[place])]
        return [self.pairs[int(epoch.pairs[place])] for place in places]

    def _draw_epoch(self, number: int) -> _Epoch:
        generator = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(number,)))
        # From the longest to the shortest, equal ones in random order.
        pairs = np.lexsort((generator.random(len(self.pairs)), -self._lengths))
        return _Epoch(number, pairs, generator.permutation(self.rows_per_epoch))

    def _refuse_long_pairs(self) -> None:
        (too_long,) = (self._lengths > self.positions).nonzero()
        if len(too_long) == 0:
            return
        others = f" ({len(too_long)} pairs are too long)" if len(too_long) > 1 else ""
        raise ValueError(
            f"a pair must fit in positions = {self.positions} chunks of {self.chunk_size} tokens; "
            f"{self.pairs[too_long[0]].place} does not: {self._lengths[too_long[0]]} chunks"
            f"{others}. Raise positions to {self._lengths.max()}, or shorten it."
        )


def _best_fit(lengths: np.ndarray, positions: int) -> list[list[int]]:
    """Rows of places, packed in the given order."""
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(positions + 1)]
    for place, length in enumerate(lengths.tolist()):
        room = next((room for room in range(length, positions + 1) if with_room[room]), None)
        if room is None:
            rows.append([])
            room, row = positions, len(rows) - 1
        else:
            row = with_room[room].pop()
        rows[row].append(place)
        with_room[room - length].append(row)
    return rows
