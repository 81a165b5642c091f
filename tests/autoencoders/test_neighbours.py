"""What is read around a chunk, against a loop over places."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.autoencoders.neighbours import neighbourhoods
from calmkit.chunking import ChunkBatch

K = 2


@st.composite
def packings(draw):
    """Lengths of the documents in one row or two."""
    positions = draw(st.integers(1, 6))
    lengths = []
    for _ in range(draw(st.integers(1, 2))):
        row = [draw(st.integers(1, positions))]
        while sum(row) < positions:
            row.append(draw(st.integers(1, positions - sum(row))))
        lengths.append(tuple(row))
    return tuple(lengths)


def batch_of(lengths, real):
    """Every token has an id of its own; `real` is repeated as often as needed."""
    shape = (len(lengths), sum(lengths[0]), K)
    tokens = torch.arange(math.prod(shape)).view(shape)
    real = torch.tensor(real).repeat(tokens.numel())[: tokens.numel()].view(shape)
    return ChunkBatch(tokens, real, lengths)


@given(
    packings(), st.lists(st.booleans(), min_size=1, max_size=24), st.integers(0, 3),
    st.integers(0, 2),
)  # fmt: skip
def test_is_the_loop_over_places(lengths, real, before, after):
    batch = batch_of(lengths, real)
    read, known = neighbourhoods(batch, before=before, after=after)
    rows, positions, _ = batch.tokens.shape
    assert read.shape == known.shape == (rows, positions, (before + 1 + after) * K)
    for row in range(rows):
        document = [d for d, n in enumerate(batch.lengths[row]) for _ in range(n)]
        for t in range(positions):
            for o in range(-before, after + 1):
                for k in range(K):
                    place, at = (o + before) * K + k, t + o
                    visible = o == 0 or (
                        0 <= at < positions
                        and document[at] == document[t]
                        and bool(batch.real[row, at, k])
                    )
                    assert bool(known[row, t, place]) == visible
                    if visible:
                        assert read[row, t, place] == batch.tokens[row, at, k]


def test_rows_without_chunks():
    empty = torch.zeros(0, 3, K, dtype=torch.long)
    batch = ChunkBatch(empty, torch.ones_like(empty, dtype=torch.bool), ())
    read, known = neighbourhoods(batch, before=1, after=1)
    assert read.shape == known.shape == (0, 3, 3 * K)
