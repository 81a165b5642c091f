"""Training batches, each a pure function of (seed, step).

    text or mixture ── TokenRing of each text ── windows ── pack ── ChunkBatch
                       Turns: text of each row     on the chunk grid

Row i of the endless sequence of rows is row i mod B of step i // B, with B rows in a batch. Its
text, its window and the phases of its segments are computed from i and the seed alone (`Turns`,
`token_ring`, `packing`). No state has to be saved for resuming, and a process or a micro-batch
builds only its own rows. The batch of a step is the same for any number of processes and any size
of micro-batches. Memory and the time to the first batch do not grow with the text.
"""

import numpy as np
import torch

from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.orders import Turns, key_of, rows_of_step

from .packing import pack
from .store import TokenStore
from .text_mixture import TextMixture
from .token_ring import TokenRing

__all__ = ["TrainingBatches"]


class TrainingBatches:
    """An endless sequence of training batches, each a pure function of (seed, step).

    Args:
        text: The training documents, or a mixture of texts; each has at least one window of
            positions * chunk_size tokens.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        batch_size: Rows in a batch.
        seed: The same seed gives the same batches.

    Attributes:
        rows_per_epoch: For each text, the number of its rows in one pass over it.

    Raises:
        ValueError: If a size is below 1, the seed is negative or a text is shorter than a row.
    """

    def __init__(
        self,
        text: TokenStore | TextMixture,
        *,
        chunk_size: int,
        positions: int,
        batch_size: int,
        seed: int,
    ) -> None:
        check_at_least(1, chunk_size=chunk_size, positions=positions, batch_size=batch_size)
        check_at_least(0, seed=seed)
        mixture = TextMixture.of(text)
        window = positions * chunk_size
        for name, store in mixture.stores.items():
            if store.num_tokens < window:
                raise ValueError(
                    f"positions * chunk_size must be at most the {store.num_tokens} tokens of the "
                    f"training text{name and f' {name}'}; got {positions} * {chunk_size} = "
                    f"{window}. Lower one of them, or give more text."
                )
        self.text = text
        self.chunk_size = chunk_size
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self._turns = Turns(mixture.shares)
        self._rings = [
            TokenRing(store, window, key_of(seed, number))
            for number, store in enumerate(mixture.stores.values())
        ]
        self._end_id = mixture.end_id
        self.rows_per_epoch = tuple(ring.windows_per_epoch for ring in self._rings)

    def batch_at(self, step: int, rows: slice = slice(None)) -> ChunkBatch:
        """The batch of one step; a pure function of the step.

        Args:
            step: Index of the step, starting at 0.
            rows: The rows of the batch to build: a process's share or a micro-batch.

        Raises:
            ValueError: If the step is negative or no row is chosen.
        """
        texts, numbers = self._turns.at(rows_of_step(step, self.batch_size, rows))
        shape = (len(texts), self.positions, self.chunk_size)
        tokens = torch.empty(shape, dtype=torch.int64)
        real = torch.empty(shape, dtype=torch.bool)
        lengths: list[tuple[int, ...]] = [()] * len(texts)
        for text in np.unique(texts).tolist():
            places = np.flatnonzero(texts == text)
            windows = self._rings[text].windows(numbers[places])
            packed = pack(windows, self.chunk_size, fill_id=self._end_id)
            if len(places) == len(texts):
                return packed
            index = torch.from_numpy(places)
            tokens[index], real[index] = packed.tokens, packed.real
            for place, of_row in zip(places.tolist(), packed.lengths, strict=True):
                lengths[place] = of_row
        return ChunkBatch(tokens, real, tuple(lengths))
