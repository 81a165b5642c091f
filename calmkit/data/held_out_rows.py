"""Rows of held-out text for evaluation.

Documents are cut from their start, in phase 0, into rows of W = positions * K tokens, so that no
token is scored twice. The last row of a document is completed with empty chunks. A subset of these
rows is selected, spread as evenly over the documents as their lengths allow: every document
contributes a first row before any contributes a second.

Documents are visited in the order of a keyed permutation until there are enough rows, and another
permutation selects the rows of a document. Time and memory thus do not grow with the held-out
text, unless most of its documents are too short for a row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from calmkit.bounds import check_at_least
from calmkit.chunking import ChunkBatch
from calmkit.orders import Turns, key_of, permuted, words
from calmkit.typing import typed

from .store import TokenStore
from .text_mixture import TextMixture

__all__ = ["EvaluationRows", "evaluation_rows"]

_BLOCK = 2**16  # documents visited at a time


@typed
@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """Rows for evaluation, each a piece of one document.

    Attributes:
        batch: The rows; `lengths` is `((positions,), ...)`.
        document: Index of the document of each row, for resampling over documents.
    """

    batch: ChunkBatch
    document: Int[Tensor, " batch"]


def evaluation_rows(
    text: TokenStore | TextMixture,
    *,
    chunk_size: int,
    positions: int,
    max_rows: int,
    seed: int,
    after: int = 0,
) -> EvaluationRows:
    """Select rows, spread as evenly over all documents as their lengths allow.

    Every document contributes a first row before any contributes a second. The rows of a document
    are chosen at random, and so are the documents if there are too many. Rows of a single chunk
    are excluded, since nothing can be predicted in them. The rows are in the order of the text. In
    a mixture, each text contributes its share of the rows, and documents are numbered
    consecutively.

    Args:
        text: The validation documents, or a mixture of texts.
        chunk_size: K, tokens in a chunk.
        positions: Chunks in a row, at least 2.
        max_rows: Maximum number of rows; a short text has fewer.
        seed: The same seed gives the same rows.
        after: Leave out the rows that a call with this `max_rows` gives, and select others.

    Raises:
        ValueError: If an argument is out of range, no document has a second chunk, or no other
            row is left.
    """
    check_at_least(1, chunk_size=chunk_size, positions=positions, max_rows=max_rows)
    check_at_least(0, seed=seed)
    if positions < 2:
        raise ValueError(
            f"positions must be at least 2, since a row's first chunk is given; got {positions}."
        )
    mixture = TextMixture.of(text)
    of_text, _ = Turns(mixture.shares).at(np.arange(after + max_rows))
    window, rows, documents, counted = positions * chunk_size, [], [], 0
    for number, (name, store) in enumerate(mixture.stores.items()):
        if wanted := int((of_text == number).sum()):
            selection = _RowSelection(store, window, chunk_size, key_of(seed, number))
            chosen = selection.rows(wanted, name)
            if before := int((of_text[:after] == number).sum()):
                # More rows contain fewer: rounds and permutations do not depend on their number.
                chosen = _without(chosen, selection.rows(before, name))
            rows += [store.read(begin, end) for begin, end in _places(store, chosen, window)]
            documents.append(chosen[:, 0] + counted)
        counted += store.num_documents
    if not rows:
        raise ValueError(
            f"the held-out text must have rows of {window} tokens beside the first {after}; it "
            "has none. Evaluate fewer rows, or give more text."
        )
    tokens = np.full((len(rows), window), mixture.end_id, dtype=np.int64)
    real = np.zeros((len(rows), window), dtype=bool)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
        real[row, : len(ids)] = True
    shape = (len(rows), positions, chunk_size)
    batch = ChunkBatch(
        torch.from_numpy(tokens.reshape(shape)),
        torch.from_numpy(real.reshape(shape)),
        ((positions,),) * len(rows),
    )
    return EvaluationRows(batch, torch.from_numpy(np.concatenate(documents)))


def _without(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pairs (document, row in the document) that are not among the others."""
    known = set(map(tuple, others.tolist()))
    left = [pair for pair in rows.tolist() if tuple(pair) not in known]
    return np.array(left, dtype=np.int64).reshape(-1, 2)


def _places(store: TokenStore, chosen: np.ndarray, window: int) -> list[tuple[int, int]]:
    """The begin and end of each row in the store."""
    documents, rows = chosen.T
    begins = store.offsets[documents] + rows * window
    ends = np.minimum(begins + window, store.offsets[documents + 1])
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


@dataclass(frozen=True)
class _RowSelection:
    """A random choice among the rows of one text."""

    store: TokenStore
    window: int
    chunk_size: int
    key: int

    def rows(self, most: int, name: str) -> np.ndarray:
        """Sorted pairs (document, row in the document) of the selected rows.

        Args:
            most: Maximum number of rows.
            name: Name of the text, for the error message.
        """
        documents, counts = self._documents(most, name)
        taken = _in_rounds(counts, most)
        turns = np.concatenate([np.arange(count) for count in taken])
        documents, counts = np.repeat(documents, taken), np.repeat(counts, taken)
        rows = permuted(turns, counts, words(self.key, 1, documents))
        order = np.lexsort((rows, documents))
        return np.stack([documents, rows], axis=1)[order]

    def _documents(self, most: int, name: str) -> tuple[np.ndarray, np.ndarray]:
        """At most `most` documents that have a row, in random order, and their row counts."""
        count, offsets = self.store.num_documents, self.store.offsets
        found, with_rows, longest = [], 0, 0
        for begin in range(0, count, _BLOCK):
            places = np.arange(begin, min(begin + _BLOCK, count))
            documents = permuted(places, count, words(self.key, 0))
            sizes = np.asarray(offsets[documents + 1] - offsets[documents])
            # The last row counts only if it has more than one chunk.
            rows = sizes // self.window + (sizes % self.window > self.chunk_size)
            found.append(np.stack([documents, rows])[:, rows > 0])
            with_rows, longest = with_rows + found[-1].shape[1], max(longest, int(sizes.max()))
            if with_rows >= most:
                break
        if with_rows == 0:
            raise ValueError(
                "chunk_size must be below the tokens of the longest validation document"
                f"{name and f' of {name}'}, {longest}; got {self.chunk_size}. Lower it, or give "
                "more text."
            )
        documents, rows = np.concatenate(found, axis=1)[:, :most]
        return documents, rows


def _in_rounds(counts: np.ndarray, most: int) -> np.ndarray:
    """Rows of each document after dealing out `most` rows in rounds, one per document."""
    low, high = 0, int(counts.max())  # full rounds: `low` rounds do not exceed `most`
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= most:
            low = middle
        else:
            high = middle - 1
    taken = np.minimum(counts, low)
    more = np.flatnonzero(counts > low)[: most - int(taken.sum())]
    taken[more] += 1
    return taken
