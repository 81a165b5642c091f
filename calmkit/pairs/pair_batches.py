r"""Rows of chunks for fine-tuning: pairs packed side by side, only responses scored.

Each pair is laid on the grid with its response at a chunk's edge, as in `chunk_pair`. The pairs
are packed, longest first, into rows of `positions` chunks by *best fit*: each into the row with
the least remaining room that still fits it. The rest of a row is one run of empty chunks.

    row      [ . p p p ][ r r r end ] | [ . . . q ][ s s s s ][ end . . . ] | [ . . . . ]
    scored        -          yes             -         yes         yes           -

The packing of lengths is the same in every epoch. The assignment of pairs to the places of their
length, and the order of the rows, are keyed permutations that change from epoch to epoch. A batch
is a pure function of (seed, step): no state has to be saved for resuming, and a process can build
only its own rows.
"""

import numpy as np
import torch

from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.orders import best_fit, key_of, permuted, rows_of_step, words

from .pair_store import PairStore

__all__ = ["PairBatches"]

_ROWS, _PAIRS = range(2)  # purposes of the words of an epoch's key


class PairBatches:
    """An endless sequence of batches of pairs, each a pure function of (seed, step).

    Args:
        pairs: The pairs.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        batch_size: Rows in a batch.
        seed: The same seed gives the same batches.
        end_id: The token after each response, and on padding and fill.

    Attributes:
        rows_per_epoch: Rows in one pass over the pairs.

    Raises:
        ValueError: If a size is below 1, the seed is negative, or a pair is longer than a row.
    """

    def __init__(
        self,
        pairs: PairStore,
        *,
        chunk_size: int,
        positions: int,
        batch_size: int,
        seed: int,
        end_id: int,
    ) -> None:
        check_at_least(1, chunk_size=chunk_size, positions=positions, batch_size=batch_size)
        check_at_least(0, seed=seed)
        self.pairs = pairs
        self.chunk_size = chunk_size
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.end_id = end_id
        prompts, responses = pairs.sizes()
        # The response's end token counts too.
        lengths = -(-prompts // chunk_size) - (-(responses + 1) // chunk_size)
        self._refuse_long_pairs(lengths)
        # Pairs sorted by their length in chunks, and the number of each length.
        self._sorted = np.argsort(lengths, kind="stable")
        self._counts = counts = np.bincount(lengths, minlength=positions + 1)
        self._groups = best_fit({n: int(c) for n, c in enumerate(counts) if c}, positions)
        self._ends = np.cumsum([group.rows for group in self._groups])
        self.rows_per_epoch = int(self._ends[-1])
        self._key = key_of(seed)

    def batch_at(self, step: int, rows: slice = slice(None)) -> ChunkBatch:
        """The batch of one step; a pure function of the step.

        Args:
            step: Index of the step, starting at 0.
            rows: The rows of the batch to build.

        Raises:
            ValueError: If the step is negative or no row is chosen.
        """
        pairs_of_rows = self._pairs_of_rows(rows_of_step(step, self.batch_size, rows))
        size = self.chunk_size
        shape = (len(pairs_of_rows), self.positions * size)
        tokens = np.full(shape, self.end_id, dtype=np.int64)
        real = np.zeros(shape, dtype=bool)
        scored = np.zeros((len(pairs_of_rows), self.positions), dtype=bool)
        packed = []
        for row, pairs in enumerate(pairs_of_rows):
            lengths, written = [], 0
            for pair in map(self.pairs.__getitem__, pairs):
                of_prompt = -(-len(pair.prompt) // size)
                middle = (written + of_prompt) * size
                end = middle + len(pair.response)
                tokens[row, middle - len(pair.prompt) : middle] = pair.prompt
                tokens[row, middle:end] = pair.response
                real[row, middle - len(pair.prompt) : end + 1] = True  # with the end token
                lengths.append(of_prompt - (-(end + 1 - middle) // size))
                written += lengths[-1]
                scored[row, middle // size : written] = True
            rest = self.positions - written
            packed.append((*lengths, rest) if rest else tuple(lengths))
        grid = (-1, self.positions, size)
        return ChunkBatch(
            torch.from_numpy(tokens.reshape(grid)),
            torch.from_numpy(real.reshape(grid)),
            tuple(packed),
            torch.from_numpy(scored),
        )

    def _pairs_of_rows(self, numbers: np.ndarray) -> list[list[int]]:
        """The pairs in the given rows of the endless sequence."""
        epochs, places = np.divmod(numbers, self.rows_per_epoch)
        keys = words(self._key, epochs)
        rows = permuted(places, self.rows_per_epoch, words(keys, _ROWS))
        groups = self._ends.searchsorted(rows, side="right")
        found, counts = [], []
        for row, group, key in zip(rows.tolist(), groups.tolist(), keys, strict=True):
            in_group = row - (int(self._ends[group]) - self._groups[group].rows)
            parts = self._groups[group].parts
            for part in parts:
                begin = part.first + in_group * part.each
                found += [(key, part.length, place) for place in range(begin, begin + part.each)]
            counts.append(sum(part.each for part in parts))
        key, length, place = (np.array(column) for column in zip(*found, strict=True))
        drawn = permuted(place, self._counts[length], words(words(key, _PAIRS), length))
        first = np.cumsum(self._counts) - self._counts
        pairs = self._sorted[first[length] + drawn]
        return [piece.tolist() for piece in np.split(pairs, np.cumsum(counts)[:-1])]

    def _refuse_long_pairs(self, lengths: np.ndarray) -> None:
        (too_long,) = (lengths > self.positions).nonzero()
        if len(too_long) == 0:
            return
        others = f" ({len(too_long)} pairs are too long)" if len(too_long) > 1 else ""
        raise ValueError(
            f"a pair must fit in positions = {self.positions} chunks of {self.chunk_size} tokens; "
            f"{self.pairs[int(too_long[0])].place} does not: {lengths[too_long[0]]} chunks"
            f"{others}. Raise positions to {lengths.max()}, or shorten it."
        )
