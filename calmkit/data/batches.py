r"""Rows of chunks for training and for evaluation.

**Training.** In each epoch the documents are put in a random order and read as one ring of
tokens, which is cut from a random place on into windows of W = positions * K tokens (the less
than W tokens that are left over differ from epoch to epoch). The windows, in random order, fill
the rows of the batches. A window is cut at document borders into segments; each is laid on the
chunk grid with a random phase, and they are packed side by side:

    window      ... a7 a8 end | end b0 b1 b2 b3 ...
    K = 4       [ .  a7 a8 end ] [ .  .  end b0 ] [ b1 b2 b3 ..

Padding only adds chunks, so a row always has at least `positions` of them; the rest is dropped.
Thus padding stands only before a segment, fill only after a document's end. All of it is a pure
function of (seed, step): nothing has to be saved to resume.

**Evaluation.** Documents are cut from their start, in phase 0, into rows of W tokens, so that no
token is scored twice; the last row of a document is completed with empty chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.chunking import ChunkBatch
from calmkit.typing import typed

from .store import TokenStore

__all__ = ["EvaluationRows", "TrainingBatches", "evaluation_rows"]


@dataclass(frozen=True, eq=False)
class _Epoch:
    """The random choices of one epoch that are shared by its windows."""

    number: int
    documents: np.ndarray  # in the order of the ring
    starts: np.ndarray  # where each begins in the ring; last, the ring's length
    shift: int  # where window 0 begins in the ring
    windows: np.ndarray  # in the order of the rows


class TrainingBatches:
    """An endless sequence of training batches, each a pure function of (seed, step).

    Args:
        store: The training documents, at least one window of tokens.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row.
        batch_size: Rows in a batch.
        seed: The same seed gives the same batches.

    Attributes:
        rows_per_epoch: Rows that go once through the text.

    Raises:
        ValueError: If a size is below 1, the seed is negative or the text is shorter than a row.
    """

    def __init__(
        self, store: TokenStore, *, chunk_size: int, positions: int, batch_size: int, seed: int
    ) -> None:
        check_sizes(chunk_size=chunk_size, positions=positions, batch_size=batch_size, seed=seed)
        window = positions * chunk_size
        if store.num_tokens < window:
            raise ValueError(
                f"positions * chunk_size must be at most the {store.num_tokens} tokens of the "
                f"training text; got {positions} * {chunk_size} = {window}. Lower one of them, or "
                "give more text."
            )
        self.store = store
        self.chunk_size = chunk_size
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.rows_per_epoch = store.num_tokens // window
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
        tokens = np.full(shape, self.store.end_id, dtype=np.int64)
        real = np.zeros(shape, dtype=bool)
        first = step * self.batch_size
        lengths = tuple(
            self._fill_row(first + row, tokens[row].reshape(-1), real[row].reshape(-1))
            for row in range(self.batch_size)
        )
        return ChunkBatch(torch.from_numpy(tokens), torch.from_numpy(real), lengths)

    def _fill_row(self, index: int, tokens: np.ndarray, real: np.ndarray) -> tuple[int, ...]:
        """Write row `index` of the endless sequence into views of one row of the batch."""
        number, place = divmod(index, self.rows_per_epoch)
        epoch = self._epoch
        if epoch.number != number:
            self._epoch = epoch = self._draw_epoch(number)
        window = int(epoch.windows[place])
        segments = list(self._segments(epoch, window))
        phases = self._generator(number, window).integers(self.chunk_size, size=len(segments))
        lengths = []
        written, size = 0, len(tokens)
        for text, phase in zip(segments, phases.tolist(), strict=True):
            if written == size:
                break
            begin = written + phase
            end = min(begin + len(text), size)
            tokens[begin:end] = text[: end - begin]
            real[begin:end] = True
            chunks = -(-(end - written) // self.chunk_size)
            lengths.append(chunks)
            written += chunks * self.chunk_size
        return tuple(lengths)

    def _segments(self, epoch: _Epoch, window: int) -> Iterator[np.ndarray]:
        """The parts of documents in one window of the ring, in order."""
        left = self.positions * self.chunk_size
        ring = int(epoch.starts[-1])
        place = (epoch.shift + window * left) % ring
        at = int(np.searchsorted(epoch.starts, place, side="right")) - 1
        while left > 0:
            document = self.store.document(int(epoch.documents[at]))
            skip = place - int(epoch.starts[at])
            segment = document[skip : skip + left]
            yield segment
            left -= len(segment)
            at = (at + 1) % len(epoch.documents)
            place = int(epoch.starts[at])

    def _draw_epoch(self, number: int) -> _Epoch:
        generator = self._generator(number)
        documents = generator.permutation(self.store.num_documents)
        sizes = np.diff(self.store.offsets)[documents]
        return _Epoch(
            number=number,
            documents=documents,
            starts=np.concatenate([[0], np.cumsum(sizes)]),
            shift=int(generator.integers(self.store.num_tokens)),
            windows=generator.permutation(self.rows_per_epoch),
        )

    def _generator(self, *key: int) -> np.random.Generator:
        # spawn_key, not [seed, *key]: numpy takes [1, 2] and [1, 2, 0] for the same seed.
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


@typed
@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """Rows to evaluate on, one piece of one document in each.

    Attributes:
        batch: The rows; `lengths` is `((positions,), ...)`.
        document: Which document of the store a row is from, for a bootstrap over documents.
    """

    batch: ChunkBatch
    document: Int[Tensor, " batch"]


def evaluation_rows(
    store: TokenStore, *, chunk_size: int, positions: int, max_rows: int, seed: int
) -> EvaluationRows:
    """Choose rows spread as evenly over all documents as their lengths allow.

    Every document gives a first row before any gives a second one, and so on; which rows of a
    document, and which documents where not all can have a turn, is random. Rows of a single chunk
    are left out: nothing can be predicted in them. The rows are in the order of the text.

    Args:
        store: The validation documents.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row, at least 2.
        max_rows: Rows wanted; fewer are returned if the text has no more.
        seed: The same seed gives the same rows.

    Raises:
        ValueError: If an argument is out of range or no document has a second chunk.
    """
    check_sizes(chunk_size=chunk_size, positions=positions, max_rows=max_rows, seed=seed)
    if positions < 2:
        raise ValueError(
            f"positions must be at least 2, since a row's first chunk is given; got {positions}."
        )
    window = positions * chunk_size
    chosen = _choose_rows(np.diff(store.offsets), window, chunk_size, max_rows, seed)
    if len(chosen) == 0:
        longest = int(np.diff(store.offsets).max())
        raise ValueError(
            "chunk_size must be below the tokens of the longest validation document, "
            f"{longest}; got {chunk_size}. Lower it, or give more text."
        )
    tokens = np.full((len(chosen), window), store.end_id, dtype=np.int64)
    real = np.zeros((len(chosen), window), dtype=bool)
    for row, (document, index) in enumerate(chosen.tolist()):
        text = store.document(document)[index * window : (index + 1) * window]
        tokens[row, : len(text)] = text
        real[row, : len(text)] = True
    shape = (len(chosen), positions, chunk_size)
    batch = ChunkBatch(
        torch.from_numpy(tokens.reshape(shape)),
        torch.from_numpy(real.reshape(shape)),
        ((positions,),) * len(chosen),
    )
    return EvaluationRows(batch, torch.from_numpy(chosen[:, 0].copy()))


def _choose_rows(
    sizes: np.ndarray, window: int, chunk_size: int, max_rows: int, seed: int
) -> np.ndarray:
    """Pairs (document, row in the document) of the chosen rows, sorted."""
    # The last row counts only if it has more than one chunk.
    counts = sizes // window + (sizes % window > chunk_size)
    documents = np.repeat(np.arange(len(sizes)), counts)
    first_row = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.arange(len(documents)) - first_row
    # In random order, a row's turn is its rank among the rows of its document.
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(documents)), documents))
    turns = np.empty_like(rows)
    turns[order] = rows
    rank_of_document = generator.permutation(len(sizes))[documents]
    chosen = np.lexsort((rank_of_document, turns))[:max_rows]
    return np.stack([documents, rows], axis=1)[np.sort(chosen)]


def check_sizes(*, seed: int, **sizes: int) -> None:
    """Refuse sizes below 1 and a negative seed."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0; got {seed}.")
