"""Tests for batches. Token ids are places in the text, so every property can be read off them."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from prepared_folders import write_prepared
from token_stores import END, equal, huge_store, make_store

from calmkit.chunking import chunk_tokens
from calmkit.data import TextMixture, TokenStore, TrainingBatches
from calmkit.orders import shares_of


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
        batches.text,
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
    store, batch = batches.text, batches.batch_at(step)
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
    store, batch = batches.text, batches.batch_at(step)
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
    (rows,), window = batches.rows_per_epoch, batches.positions * batches.chunk_size
    first = epoch * rows
    seen, holes = [], 0
    for index in range(first, first + rows):
        step, row = divmod(index, batches.batch_size)
        batch = batches.batch_at(step)
        seen += batch.tokens[row][batch.real[row]].tolist()
        holes += int((~batch.real[row]).sum())
    total = batches.text.num_tokens
    assert rows == total // window
    assert len(set(seen)) == len(seen)
    assert total - len(seen) == total % window + holes


@given(st.integers(1, 60), st.integers(1, 10), st.integers(0, 100))
def test_chunks_of_one_token_miss_only_the_rest_of_the_ring(size, positions, seed):
    assume(size >= positions)
    batches = TrainingBatches(
        make_store([size]), chunk_size=1, positions=positions, batch_size=1, seed=seed
    )
    seen = [
        batches.batch_at(s).tokens.flatten().tolist() for s in range(batches.rows_per_epoch[0])
    ]
    assert len({token for row in seen for token in row}) == size - size % positions


def test_windows_documents_offsets_and_phases_vary():
    batches = TrainingBatches(
        make_store([40] * 30), chunk_size=4, positions=8, batch_size=37, seed=0
    )
    assert batches.rows_per_epoch == (37,)
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
        batches.text, chunk_size=4, positions=8, batch_size=37, seed=1
    ).batch_at(0)
    assert not torch.equal(first.tokens, other.tokens)


def test_windows_come_in_random_order():
    """In the order of the ring, each of 200 windows would follow the one before it."""
    batches = TrainingBatches(make_store([800]), chunk_size=1, positions=4, batch_size=200, seed=0)
    for step in range(3):
        firsts = batches.batch_at(step).tokens[:, 0, 0]
        following = (firsts.diff() % 800 == 4).sum()
        assert following < 10  # one is expected; ten have a probability below 1e-6
    first, second = (batches.batch_at(step).tokens[:, 0, 0] for step in (0, 1))
    turned = (second - first) % 800
    assert len(turned.unique()) > 50  # the next epoch has another order, not another shift alone


def test_every_token_begins_a_ring_equally_often():
    """One document, one window: its first token is the ring's shift, uniform over the text."""
    batches = TrainingBatches(make_store([8]), chunk_size=1, positions=8, batch_size=1, seed=3)
    firsts = [int(batches.batch_at(step).tokens[0, 0, 0]) for step in range(1600)]
    counts = np.bincount(firsts, minlength=8)
    assert (abs(counts - 200) < 6 * (1600 * 7 / 64) ** 0.5).all()


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
def mixtures(draw):
    """Texts whose ids do not meet, and the batches of their mixture."""
    chunk_size, positions = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stores, first = {}, 0
    for name in "abc"[: draw(st.integers(1, 3))]:
        sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=5))
        assume(sum(sizes) >= chunk_size * positions)
        stores[name] = make_store(sizes, first)
        first += sum(sizes)
    weights = [draw(st.integers(1, 5)) for _ in stores]
    return TrainingBatches(
        TextMixture(stores, shares_of(weights)),
        chunk_size=chunk_size,
        positions=positions,
        batch_size=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 9)),
    )


@given(mixtures(), st.integers(0, 10**6), st.data())
def test_rows_of_any_split_are_those_of_the_whole_batch(batches, step, data):
    whole = batches.batch_at(step)
    size = batches.batch_size
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size)))})
    pieces = [slice(a, b) for a, b in pairwise(cuts)]
    pieces += [slice(rank, None, 2) for rank in range(min(2, size))]  # every second row
    for piece in pieces:
        assert equal(batches.batch_at(step, piece), whole.rows(piece))


@given(mixtures(), st.integers(0, 2))
def test_each_text_of_a_mixture_is_walked_in_its_own_epochs(batches, epoch):
    """Its rows, in order, are those of one text: each of its tokens at most once an epoch."""
    mixture = batches.text
    firsts = [int(store.tokens[0]) for store in mixture.stores.values()]
    rows_of = [[] for _ in firsts]
    wanted = [(epoch + 1) * rows for rows in batches.rows_per_epoch]
    step = 0
    while any(len(rows) < count for rows, count in zip(rows_of, wanted, strict=True)):
        batch = batches.batch_at(step)
        for tokens, real in zip(batch.tokens, batch.real, strict=True):
            text = int(np.searchsorted(firsts, int(tokens[real][0]), side="right")) - 1
            rows_of[text].append(tokens[real].tolist())
        step += 1
    window = batches.positions * batches.chunk_size
    for store, rows, count in zip(
        mixture.stores.values(), rows_of, batches.rows_per_epoch, strict=True
    ):
        seen = [token for row in rows[epoch * count : (epoch + 1) * count] for token in row]
        assert count == store.num_tokens // window
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(store.tokens.tolist())
    total = step * batches.batch_size
    had = [len(rows) for rows in rows_of]
    assert all(abs(c - total * s) < 1 for c, s in zip(had, mixture.shares, strict=True))


def test_texts_of_a_mixture_are_drawn_apart():
    """The same text twice: its two orders are different ones."""
    store = make_store([40] * 30)
    batches = TrainingBatches(
        TextMixture({"a": store, "b": store}, shares_of([1, 1])),
        chunk_size=1,
        positions=8,
        batch_size=2,
        seed=0,
    )
    rows = [batches.batch_at(step).tokens for step in range(20)]
    assert not any(torch.equal(one[0], one[1]) for one in rows)


def test_a_text_of_a_mixture_that_is_too_short_is_named():
    mixture = TextMixture({"long": make_store([50]), "short": make_store([9])}, shares_of([1, 1]))
    with pytest.raises(ValueError, match=r"at most the 9 tokens of the training text short; got"):
        TrainingBatches(mixture, chunk_size=2, positions=5, batch_size=1, seed=0)


def test_memory_does_not_grow_with_the_documents():
    """50 million documents, 10^10 tokens: a number for each of them would be 400 MB."""
    store = huge_store(50_000_000, 200)
    tracemalloc.start()
    try:
        batches = TrainingBatches(store, chunk_size=4, positions=64, batch_size=8, seed=0)
        batch = batches.batch_at(10**6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert batches.rows_per_epoch == (10**10 // 256,)
    assert peak < 2_000_000
    for _, tokens, real in segments(batch):
        assert tokens[real].diff().remainder(2**16).eq(1).all()


def test_rows_must_choose_some():
    batches = TrainingBatches(make_store([8]), chunk_size=1, positions=4, batch_size=3, seed=0)
    with pytest.raises(ValueError, match=r"rows must choose at least one of the 3 rows"):
        batches.batch_at(0, slice(3, 5))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 12), st.integers(0, 9))
def test_files_of_a_prepared_folder_change_nothing(tmp_path_factory, sizes, shard_tokens, seed):
    documents = [np.arange(size) for size in sizes]
    folder = write_prepared(
        tmp_path_factory.mktemp("prepared"),
        train=documents, validation=documents, shard_tokens=shard_tokens,
    )  # fmt: skip
    assume(sum(sizes) >= 6)
    memory = TokenStore(np.concatenate(documents), np.cumsum([0, *sizes]), 300, 7, 0)
    for step in range(4):
        one, other = (
            TrainingBatches(text, chunk_size=2, positions=3, batch_size=3, seed=seed)
            for text in (memory, TokenStore.open(folder, "train"))
        )
        assert equal(one.batch_at(step), other.batch_at(step))
