"""Windows of text laid on the chunk grid: each segment in a phase of its own, side by side.

    window      ... a7 a8 end | end b0 b1 b2 b3 ...
    K = 4       [ .  a7 a8 end ] [ .  .  end b0 ] [ b1 b2 b3 ..

Padding only adds chunks, so a row always has at least as many as its window's tokens fill; what is
beyond the row's end is dropped. Thus padding stands only before a segment, fill only after a
document's end.

Tokens that are kept stay in their order. So once it is known which places of the grid are real and
which tokens are kept, the kept ones in order fill the real ones in order, for all rows at once.
"""

from itertools import pairwise

import numpy as np
import torch

from calmkit.chunking import ChunkBatch

from .token_ring import Windows

__all__ = ["pack"]


def pack(windows: Windows, chunk_size: int, *, fill_id: int) -> ChunkBatch:
    """Lay windows on the grid, a row for each.

    Args:
        windows: Windows of positions * chunk_size tokens.
        chunk_size: K, tokens in a chunk.
        fill_id: The id written on padding and fill.
    """
    rows, size = windows.text.shape
    counts, positions = windows.counts, size // chunk_size
    begins = windows.starts + np.repeat(np.arange(rows) * size, counts)
    sizes = np.diff(begins, append=rows * size)
    phases = (windows.draws % np.uint64(chunk_size)).astype(np.int64)
    chunks = -(-(phases + sizes) // chunk_size)
    before = np.cumsum(chunks) - chunks  # chunks of earlier segments, of the row's own after this
    before -= np.repeat(before[np.cumsum(counts) - counts], counts)
    # Of a segment beyond the row's end nothing is kept, of the one across it a part.
    kept = np.clip(size - before * chunk_size - phases, 0, sizes)
    chunks = np.clip(positions - before, 0, chunks)
    targets = np.repeat(np.arange(rows) * size, counts) + before * chunk_size + phases
    targets, held = targets[kept > 0], kept[kept > 0]

    gaps = targets - np.concatenate([[0], (targets + held)[:-1]])
    is_real = _alternating(gaps, held, rows * size)
    is_kept = ~_alternating(kept, sizes - kept, rows * size)
    tokens = np.full(rows * size, fill_id, dtype=np.int64)
    tokens[is_real] = windows.text.reshape(-1)[is_kept]
    shape = (rows, positions, chunk_size)
    return ChunkBatch(
        torch.from_numpy(tokens.reshape(shape)),
        torch.from_numpy(is_real.reshape(shape)),
        _lengths(chunks, counts),
    )


def _alternating(false: np.ndarray, true: np.ndarray, size: int) -> np.ndarray:
    """A mask of `false[0]` times False, `true[0]` times True, `false[1]` times False, ..."""
    runs = np.stack([false, true], axis=1).reshape(-1)
    mask = np.zeros(size, dtype=bool)
    mask[: runs.sum()] = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return mask


def _lengths(chunks: np.ndarray, counts: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The chunks of each row's segments, without those of which nothing is left."""
    ends = [0, *np.cumsum(counts).tolist()]
    every = chunks.tolist()
    return tuple(tuple(c for c in every[a:b] if c) for a, b in pairwise(ends))
