"""Batches of pairs. Token ids are unique, so every property can be read off them."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.chunking import chunk_pair
from calmkit.orders import best_fit
from calmkit.pairs import PairBatches, PairStore, TokenPair

END = 0


def make_pairs(sizes):
    """Pairs of the given sizes, with ids 1, 2, 3, ..."""
    ends = np.cumsum([size for pair in sizes for size in pair])
    pieces = np.split(np.arange(1, ends[-1] + 1, dtype=np.int32), ends[:-1])
    return PairStore.of(
        TokenPair(prompt, response, "file", line)
        for line, (prompt, response) in enumerate(zip(pieces[::2], pieces[1::2], strict=True), 1)
    )


def every(pairs):
    return [pairs[index] for index in range(len(pairs))]


def chunks_of(pair, chunk_size):
    """How many chunks a pair takes, its end token included."""
    return -(-len(pair.prompt) // chunk_size) + -(-(len(pair.response) + 1) // chunk_size)


@st.composite
def problems(draw):
    sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    pairs = make_pairs(draw(st.lists(sizes, min_size=1, max_size=12)))
    chunk_size = draw(st.integers(1, 5))
    longest = max(chunks_of(pair, chunk_size) for pair in every(pairs))
    return PairBatches(
        pairs,
        chunk_size=chunk_size,
        positions=longest + draw(st.integers(0, 12)),
        batch_size=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**40)),
        end_id=END,
    )


def again(batches, **changes):
    arguments = {
        name: getattr(batches, name)
        for name in ("chunk_size", "positions", "batch_size", "seed", "end_id")
    }
    return PairBatches(batches.pairs, **{**arguments, **changes})


def equal(first, second):
    return first.lengths == second.lengths and all(
        torch.equal(getattr(first, name), getattr(second, name))
        for name in ("tokens", "real", "scored")
    )


def pairs_of_row(batches, index):
    """(tokens, real, scored) of each pair in row `index` of the endless sequence."""
    step, row = divmod(index, batches.batch_size)
    batch = batches.batch_at(step)
    split = [x[row].split(batch.lengths[row]) for x in (batch.tokens, batch.real, batch.scored)]
    return [laid for laid in zip(*split, strict=True) if laid[1].any()]


@given(problems(), st.integers(0, 30), st.lists(st.integers(0, 30)))
def test_batch_is_a_pure_function_of_seed_and_step(batches, step, others):
    wanted = batches.batch_at(step)
    for other in others:  # whatever was asked for before
        batches.batch_at(other)
    assert equal(wanted, batches.batch_at(step))
    assert equal(wanted, again(batches).batch_at(step))


@given(problems(), st.integers(0, 3))
def test_an_epoch_holds_each_pair_once_laid_by_chunk_pair(batches, epoch):
    """The oracle is `chunk_pair`, of the pair whose ids are found."""
    by_id = {int(pair.prompt[0]): pair for pair in every(batches.pairs)}
    rows = range(epoch * batches.rows_per_epoch, (epoch + 1) * batches.rows_per_epoch)
    seen = Counter()
    for index in rows:
        for tokens, real, scored in pairs_of_row(batches, index):
            pair = by_id[int(tokens[real][0])]
            seen[pair.place] += 1
            want = chunk_pair(
                pair.prompt.tolist(), pair.response.tolist(), batches.chunk_size,
                fill_id=END, end_id=END,
            )  # fmt: skip
            for got, laid in zip((tokens, real, scored), want, strict=True):
                assert torch.equal(got, laid)
    assert seen == dict.fromkeys((pair.place for pair in every(batches.pairs)), 1)


@given(problems(), st.integers(0, 5))
def test_what_is_left_of_a_row_is_empty_and_at_its_end(batches, step):
    batch = batches.batch_at(step)
    for row, lengths in enumerate(batch.lengths):
        filled = [bool(x.any()) for x in batch.real[row].split(lengths)]
        assert filled[:-1] == [True] * (len(lengths) - 1)
        if not filled[-1]:
            assert not batch.scored[row].split(lengths)[-1].any()
            assert (batch.tokens[row].split(lengths)[-1] == END).all()
    # Each response chunk is asked for, each prompt chunk is not.
    assert torch.equal(batch.predictable(), batch.scored)


@given(problems())
def test_rows_are_packed_by_best_fit(batches):
    """A loop over rows: of those with room the fullest, the last changed of equals."""
    rows = []  # the last changed at the end
    for length in sorted(
        (chunks_of(p, batches.chunk_size) for p in every(batches.pairs)), reverse=True
    ):
        fitting = [
            (sum(row), index)
            for index, row in enumerate(rows)
            if sum(row) + length <= batches.positions
        ]
        row = rows.pop(max(fitting)[1]) if fitting else []
        rows.append([*row, length])
    got = [
        tuple(len(tokens) for tokens, _, _ in pairs_of_row(batches, index))
        for index in range(batches.rows_per_epoch)
    ]
    assert Counter(got) == Counter(map(tuple, rows))


def test_neighbours_and_order_change_from_epoch_to_epoch_and_with_the_seed():
    batches = PairBatches(
        make_pairs([(2, 3)] * 8), chunk_size=2, positions=6, batch_size=4, seed=0, end_id=END
    )
    assert batches.rows_per_epoch == 4  # of 3 chunks each, two in a row

    def neighbours(source, step):
        return {
            frozenset(int(tokens[0, 0]) for tokens, _, _ in pairs_of_row(source, 4 * step + row))
            for row in range(4)
        }

    first, second = neighbours(batches, 0), neighbours(batches, 1)
    other = neighbours(again(batches, seed=1), 0)
    assert first != second and first != other and second != other
    firsts = {int(batches.batch_at(step).tokens[0, 0, 0]) for step in range(40)}
    assert len(firsts) == 8  # each of them begins an epoch some time


def test_rows_come_in_random_order():
    """Eight lengths, a row for each: a packing in order would begin with the longest."""
    batches = PairBatches(
        make_pairs([(1, size) for size in range(8, 16)]), chunk_size=1, positions=17,
        batch_size=1, seed=0, end_id=END,
    )  # fmt: skip
    firsts = Counter(int(batches.batch_at(8 * epoch).real.sum()) for epoch in range(400))
    # 6 standard deviations around a probability of 1/8.
    assert len(firsts) == 8
    assert all(abs(count - 50) < 6 * (400 * 7 / 64) ** 0.5 for count in firsts.values())


def test_refusals_name_the_first_pair_that_is_too_long():
    pairs = make_pairs([(1, 1), (3, 8), (1, 2), (9, 9)])
    arguments = {"chunk_size": 2, "batch_size": 1, "seed": 0, "end_id": END}
    PairBatches(pairs, positions=10, **arguments)
    with pytest.raises(
        ValueError,
        match=r"fit in positions = 6 chunks of 2 tokens; file:2 does not: 7 chunks \(2 pairs "
        r"are too long\)\. Raise positions to 10, or shorten it",
    ):
        PairBatches(pairs, positions=6, **arguments)
    with pytest.raises(ValueError, match=r"file:4 does not: 10 chunks\. Raise"):
        PairBatches(pairs, positions=9, **arguments)
    with pytest.raises(ValueError, match="positions must be at least 1; got 0"):
        PairBatches(pairs, positions=0, **arguments)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        PairBatches(pairs, positions=10, **{**arguments, "seed": -1})
    with pytest.raises(ValueError, match="step must be at least 0; got -1"):
        PairBatches(pairs, positions=10, **arguments).batch_at(-1)


@given(problems(), st.integers(0, 20), st.data())
def test_rows_of_any_split_are_those_of_the_whole_batch(batches, step, data):
    whole, size = batches.batch_at(step), batches.batch_size
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size)))})
    for begin, end in pairwise(cuts):
        piece = slice(begin, end)
        assert equal(batches.batch_at(step, piece), whole.rows(piece))


def test_any_number_of_pairs_is_packed_in_few_steps():
    """A hundred million pairs of 40 lengths: every place is there once."""
    counts = dict.fromkeys(range(1, 41), 2_500_000)
    groups = best_fit(counts, 64)
    assert len(groups) < 200
    for length, count in counts.items():
        places = sorted(
            (part.first, group.rows * part.each)
            for group in groups for part in group.parts if part.length == length
        )  # fmt: skip
        assert [first for first, _ in places] == np.cumsum([0, *(n for _, n in places)])[
            :-1
        ].tolist()
        assert sum(n for _, n in places) == count
    assert all(sum(p.length * p.each for p in group.parts) <= 64 for group in groups)
