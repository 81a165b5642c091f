"""Tests for batches. Token ids are places in the text, so every property can be read off them."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.chunking import ChunkBatch, chunk_tokens
from calmkit.data import EvaluationRows, TokenStore, TrainingBatches, evaluation_rows

END = 10_000  # written on padding and fill only, so that these can be told from text


def make_store(sizes):
    offsets = np.cumsum([0, *sizes])
    return TokenStore(np.arange(offsets[-1]), offsets, END + 1, END, num_characters=0)


@st.composite
def training(draw):
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    chunk_size, positions = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    assume(sum(sizes) >= chunk_size * positions)
    return TrainingBatches(
        make_store(sizes),
        chunk_size=chunk_size,
        positions=positions,
        batch_size=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 2**40)),
    )


steps = st.integers(0, 30)


def equal(first, second):
    return (
        torch.equal(first.tokens, second.tokens)
        and torch.equal(first.real, second.real)
        and first.lengths == second.lengths
    )


def segments(batch):
    """For each packed segment: (row, chunks, mask)."""
    for row, lengths in enumerate(batch.lengths):
        chunks = batch.tokens[row].split(lengths)
        for tokens, real in zip(chunks, batch.real[row].split(lengths), strict=True):
            yield row, tokens, real


def document_of(store, token):
    return int(np.searchsorted(store.offsets, token, side="right")) - 1


@given(training(), steps, st.lists(steps))
def test_batch_is_a_pure_function_of_seed_and_step(batches, step, others):
    wanted = batches.batch_at(step)
    for other in others:  # whatever was asked for before
        batches.batch_at(other)
    fresh = TrainingBatches(
        batches.store,
        chunk_size=batches.chunk_size,
        positions=batches.positions,
        batch_size=batches.batch_size,
        seed=batches.seed,
    )
    assert equal(wanted, batches.batch_at(step))
    assert equal(wanted, fresh.batch_at(step))


@given(training(), steps)
def test_rows_are_full_and_each_segment_is_laid_on_the_grid(batches, step):
    """The oracle is `chunk_tokens`, of the text from the segment's first token on."""
    store, batch = batches.store, batches.batch_at(step)
    assert batch.tokens.shape == (batches.batch_size, batches.positions, batches.chunk_size)
    for _, tokens, real in segments(batch):
        text = tokens[real]
        phase = int(real.flatten().int().argmax())
        first = int(text[0])
        assert text.tolist() == list(range(first, first + len(text)))  # no gap, no straddling
        document = document_of(store, first)
        end = int(store.offsets[document + 1])
        assert text[-1] < end
        wanted, mask = chunk_tokens(
            torch.arange(first, end), batches.chunk_size, phase=phase, fill_id=END
        )
        # Cut by the row's or the window's end, but then at a chunk's edge.
        torch.testing.assert_close(tokens, wanted[: len(tokens)])
        torch.testing.assert_close(real, mask[: len(tokens)])


@given(training(), steps)
def test_padding_is_only_before_a_segment_and_fill_only_after_a_documents_end(batches, step):
    store, batch = batches.store, batches.batch_at(step)
    for _, tokens, real in segments(batch):
        places = real.flatten().nonzero().flatten()
        assert places[0] < batches.chunk_size
        assert places.diff().eq(1).all()
        assert tokens[~real].eq(END).all()
        if places[-1] + 1 < real.numel():
            assert int(tokens[real][-1]) + 1 in store.offsets.tolist()


@given(training(), st.integers(0, 3))
def test_an_epoch_covers_the_text_once_up_to_truncation(batches, epoch):
    """Missing tokens: what one window leaves of the ring, and as many as were padding or fill."""
    rows, window = batches.rows_per_epoch, batches.positions * batches.chunk_size
    first = epoch * rows
    seen, holes = [], 0
    for index in range(first, first + rows):
        step, row = divmod(index, batches.batch_size)
        batch = batches.batch_at(step)
        seen += batch.tokens[row][batch.real[row]].tolist()
        holes += int((~batch.real[row]).sum())
    total = batches.store.num_tokens
    assert rows == total // window
    assert len(set(seen)) == len(seen)
    assert total - len(seen) == total % window + holes


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 100))
def test_chunks_of_one_token_miss_only_the_rest_of_the_ring(size, positions, seed):
    assume(size >= positions)
    batches = TrainingBatches(
        make_store([size]), chunk_size=1, positions=positions, batch_size=1, seed=seed
    )
    seen = [batches.batch_at(s).tokens.flatten().tolist() for s in range(batches.rows_per_epoch)]
    assert len({token for row in seen for token in row}) == size - size % positions


def test_windows_documents_offsets_and_phases_vary():
    batches = TrainingBatches(
        make_store([40] * 30), chunk_size=4, positions=8, batch_size=37, seed=0
    )
    assert batches.rows_per_epoch == 37
    first, second = batches.batch_at(0), batches.batch_at(1)
    assert not torch.equal(first.tokens, second.tokens)
    phases = np.bincount(
        [
            int(real.flatten().int().argmax())
            for step in range(20)
            for _, _, real in segments(batches.batch_at(step))
        ],
        minlength=4,
    )
    # 740 rows, each with one segment or more: 4 equally likely phases, 6 standard deviations.
    total = phases.sum()
    assert (abs(phases - total / 4) < 6 * (total * 3 / 16) ** 0.5).all()
    other = TrainingBatches(
        batches.store, chunk_size=4, positions=8, batch_size=37, seed=1
    ).batch_at(0)
    assert not torch.equal(first.tokens, other.tokens)


def test_every_token_begins_a_ring_equally_often():
    """One document, one window: its first token is the ring's shift, uniform over the text."""
    batches = TrainingBatches(make_store([8]), chunk_size=1, positions=8, batch_size=1, seed=3)
    firsts = [int(batches.batch_at(step).tokens[0, 0, 0]) for step in range(1600)]
    counts = np.bincount(firsts, minlength=8)
    assert (abs(counts - 200) < 6 * (1600 * 7 / 64) ** 0.5).all()


def test_key_of_a_window_is_never_the_key_of_an_epoch():
    batches = TrainingBatches(make_store([8]), chunk_size=1, positions=4, batch_size=1, seed=0)
    draws = {
        key: batches._generator(*key).integers(2**60)
        for key in [(0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    }
    assert len(set(draws.values())) == len(draws)


def test_text_shorter_than_a_row_is_refused():
    store = make_store([10, 5])
    TrainingBatches(store, chunk_size=3, positions=5, batch_size=1, seed=0).batch_at(0)
    with pytest.raises(ValueError, match=r"at most the 15 tokens .*; got 4 \* 4 = 16\. Lower"):
        TrainingBatches(store, chunk_size=4, positions=4, batch_size=1, seed=0)


@pytest.mark.parametrize("name", ["chunk_size", "positions", "batch_size"])
def test_training_sizes_must_be_positive(name):
    sizes = {"chunk_size": 1, "positions": 1, "batch_size": 1, "seed": 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        TrainingBatches(make_store([5]), **(sizes | {name: 0}))
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        TrainingBatches(make_store([5]), **(sizes | {"seed": -1}))
    with pytest.raises(ValueError, match="step must be at least 0; got -1"):
        TrainingBatches(make_store([5]), **sizes).batch_at(-1)


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
        for index, document in enumerate(store.documents)
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
