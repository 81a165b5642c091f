"""Tests for evaluation rows. Token ids are places in the text, so that rows can be read off."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from token_stores import END, documents_of, equal, huge_store, make_store

from calmkit.chunking import ChunkBatch, chunk_tokens
from calmkit.data import (
    EvaluationRows,
    TextMixture,
    evaluation_rows,
    held_out_rows,
)
from calmkit.orders import shares_of


@st.composite
def evaluation(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    chunk_size, positions = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    assume(max(sizes) > chunk_size)
    return make_store(sizes), chunk_size, positions


def all_rows(store, chunk_size, positions):
    """Plain loop: every row that has a second chunk, as (document, tokens)."""
    window = chunk_size * positions
    return [
        (index, document[begin : begin + window])
        for index, document in enumerate(documents_of(store))
        for begin in range(0, len(document), window)
        if len(document[begin : begin + window]) > chunk_size
    ]


@given(evaluation(), st.integers(1, 30), st.integers(0, 99))
def test_evaluation_rows_are_pieces_of_documents(problem, max_rows, seed):
    store, chunk_size, positions = problem
    rows = evaluation_rows(
        store, chunk_size=chunk_size, positions=positions, max_rows=max_rows, seed=seed
    )
    possible = {int(text[0]): (index, text) for index, text in all_rows(*problem)}
    batch = rows.batch
    assert len(batch.tokens) == min(max_rows, len(possible))
    assert batch.lengths == ((positions,),) * len(batch.tokens)
    firsts = batch.tokens[:, 0, 0].tolist()
    assert firsts == sorted(set(firsts))
    for row, first in enumerate(firsts):
        index, text = possible[first]
        assert rows.document[row] == index
        grid, mask = chunk_tokens(torch.from_numpy(text), chunk_size, phase=0, fill_id=END)
        torch.testing.assert_close(batch.tokens[row, : len(grid)], grid)
        torch.testing.assert_close(batch.real[row, : len(grid)], mask)
        assert batch.tokens[row, len(grid) :].eq(END).all()
        assert not batch.real[row, len(grid) :].any()
    assert batch.predictable().any(dim=1).all()
    again = evaluation_rows(
        store, chunk_size=chunk_size, positions=positions, max_rows=max_rows, seed=seed
    )
    assert equal(batch, again.batch) and torch.equal(rows.document, again.document)


@given(evaluation(), st.integers(1, 30), st.integers(0, 99))
def test_evaluation_rows_are_spread_evenly(problem, max_rows, seed):
    store, chunk_size, positions = problem
    rows = evaluation_rows(
        store, chunk_size=chunk_size, positions=positions, max_rows=max_rows, seed=seed
    )
    given_ = np.bincount(rows.document, minlength=store.num_documents)
    possible = np.bincount(
        [index for index, _ in all_rows(*problem)], minlength=store.num_documents
    )
    # A document that could give more rows has at most one fewer than any other.
    for document in (given_ < possible).nonzero()[0]:
        assert given_[document] >= given_.max() - 1


@pytest.mark.parametrize("sizes", [[6] * 10, [60]], ids=["documents", "rows of one document"])
def test_choice_of_evaluation_rows_is_random(sizes):
    """Ten possible rows, one wanted: 200 seeds give each nearly equally often."""
    store = make_store(sizes)
    rows = [
        evaluation_rows(store, chunk_size=2, positions=3, max_rows=1, seed=seed)
        for seed in range(200)
    ]
    counts = np.bincount([int(row.batch.tokens[0, 0, 0]) // 6 for row in rows], minlength=10)
    assert (abs(counts - 20) < 6 * (200 * 9 / 100) ** 0.5).all()
    assert (counts > 0).all()


def test_evaluation_refuses_what_gives_no_prediction():
    with pytest.raises(ValueError, match="positions must be at least 2"):
        evaluation_rows(make_store([9]), chunk_size=2, positions=1, max_rows=1, seed=0)
    with pytest.raises(ValueError, match="longest validation document, 9; got 9"):
        evaluation_rows(make_store([9, 3]), chunk_size=9, positions=2, max_rows=1, seed=0)
    with pytest.raises(ValueError, match="max_rows must be at least 1; got 0"):
        evaluation_rows(make_store([9]), chunk_size=2, positions=2, max_rows=0, seed=0)


def test_evaluation_rows_check_their_shapes():
    batch = ChunkBatch(torch.zeros(2, 1, 1).long(), torch.ones(2, 1, 1).bool(), ((1,), (1,)))
    with pytest.raises(TypeCheckError):
        EvaluationRows(batch, torch.zeros(2, 1).long())


@given(evaluation(), evaluation(), st.integers(1, 20), st.integers(1, 4), st.integers(1, 4))
def test_of_a_mixture_each_text_gives_its_share(first, second, max_rows, one, two):
    (a, chunk_size, positions), (b, _, _) = first, second
    assume(int(np.diff(b.offsets).max()) > chunk_size)
    mixture = TextMixture({"a": a, "b": b}, shares_of([one, two]))
    arguments = {"chunk_size": chunk_size, "positions": positions, "seed": 5}
    rows = evaluation_rows(mixture, max_rows=max_rows, **arguments)
    of_b = rows.document >= a.num_documents
    possible = [len(all_rows(store, chunk_size, positions)) for store in (a, b)]
    for found, some, share in zip(
        (int((~of_b).sum()), int(of_b.sum())), possible, mixture.shares, strict=True
    ):
        assert found == some < max_rows * share + 1 or abs(found - max_rows * share) < 1
    if not of_b.all():
        # The first text's rows are those it gives alone.
        alone = evaluation_rows(a, max_rows=int((~of_b).sum()), **arguments)
        assert torch.equal(rows.batch.tokens[~of_b], alone.batch.tokens)
    for row in of_b.nonzero().flatten().tolist():
        document = b.document(int(rows.document[row]) - a.num_documents)
        assert int(rows.batch.tokens[row, 0, 0]) in document


def test_documents_are_looked_at_in_blocks(monkeypatch):
    """A block of three gives the rows of a single block, but for what lies beyond the need."""
    store = make_store([1, 9, 2, 30, 1, 1, 8, 1, 40, 1, 1, 7])
    arguments = {"chunk_size": 2, "positions": 3, "seed": 0}
    wanted = [evaluation_rows(store, max_rows=n, **arguments) for n in (1, 3, 5, 40)]
    monkeypatch.setattr(held_out_rows, "_BLOCK", 3)
    for n, one in zip((1, 3, 5, 40), wanted, strict=True):
        again = evaluation_rows(store, max_rows=n, **arguments)
        assert equal(again.batch, one.batch) and torch.equal(again.document, one.document)


def test_memory_and_time_do_not_grow_with_the_documents():
    store = huge_store(50_000_000, 200)
    tracemalloc.start()
    try:
        rows = evaluation_rows(store, chunk_size=4, positions=16, max_rows=100, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(set(rows.document.tolist())) == 100
    assert peak < 30_000_000  # one block of documents


@given(evaluation(), evaluation(), st.integers(1, 20), st.integers(1, 20), st.booleans())
def test_rows_after_some_are_others(first, second, after, more, mixed):
    (store, chunk_size, positions), (other, _, _) = first, second
    assume(int(np.diff(other.offsets).max()) > chunk_size)
    text = TextMixture({"a": store, "b": other}, shares_of([2, 1])) if mixed else store
    arguments = {"chunk_size": chunk_size, "positions": positions, "seed": 5}

    def places(**numbers):
        rows = evaluation_rows(text, **numbers, **arguments)
        return set(zip(rows.document.tolist(), rows.batch.tokens[:, 0, 0].tolist(), strict=True))

    before, together = places(max_rows=after), places(max_rows=after + more)
    if before == together:
        with pytest.raises(ValueError, match=f"rows of .* beside the first {after}; it has none"):
            places(max_rows=more, after=after)
    else:
        assert places(max_rows=more, after=after) == together - before
        assert before < together
