"""The chunk grid: nothing is lost, everything else is marked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.chunking import (
    ChunkBatch,
    aligned_loss_mask,
    chunk_pair,
    chunk_prompts,
    chunk_tokens,
)

texts = st.lists(st.integers(0, 99), min_size=1, max_size=20)


@given(texts, st.integers(1, 5), st.integers(0, 4))
def test_the_text_is_on_the_grid_in_order(text, chunk_size, phase):
    phase %= chunk_size
    tokens, real = chunk_tokens(torch.tensor(text), chunk_size, phase=phase, fill_id=7)
    assert tokens[real].tolist() == text
    assert (tokens[~real] == 7).all()
    # As few chunks as possible, and the text in one piece after the padding.
    assert len(tokens) == (phase + len(text) + chunk_size - 1) // chunk_size
    assert real.flatten().nonzero().flatten().tolist() == list(range(phase, phase + len(text)))


def test_the_docstrings_example():
    tokens, real = chunk_tokens(torch.arange(8), 4, phase=1, fill_id=99)
    assert tokens.tolist() == [[99, 0, 1, 2], [3, 4, 5, 6], [7, 99, 99, 99]]
    assert real.tolist() == [
        [False, True, True, True],
        [True, True, True, True],
        [True, False, False, False],
    ]


@pytest.mark.parametrize(
    ("length", "chunk_size", "phase", "match"),
    [
        (3, 0, 0, "chunk_size must be at least 1; got 0"),
        (3, 4, 4, r"phase must be in \[0, chunk_size = 4\); got 4"),
        (3, 4, -1, r"phase must be in \[0, chunk_size = 4\); got -1"),
        (0, 4, 0, "tokens must hold at least one token"),
    ],
)
def test_chunk_tokens_refuses(length, chunk_size, phase, match):
    with pytest.raises(ValueError, match=match):
        chunk_tokens(torch.zeros(length, dtype=torch.long), chunk_size, phase=phase, fill_id=0)


def test_tokens_must_be_one_integer_row():
    for wrong in (torch.zeros(2, 3, dtype=torch.long), torch.zeros(3)):
        with pytest.raises(TypeCheckError, match="parameter 'tokens'"):
            chunk_tokens(wrong, 2, phase=0, fill_id=0)


@given(st.lists(texts, min_size=1, max_size=4), st.integers(1, 5))
def test_prompts_end_at_a_chunks_edge(prompts, chunk_size):
    tokens, real, lengths = chunk_prompts(prompts, chunk_size, fill_id=3)
    assert tokens.shape == (len(prompts), int(lengths.max()), chunk_size)
    for row, prompt in enumerate(prompts):
        used = int(lengths[row])
        assert used == -(-len(prompt) // chunk_size)
        flat, marks = tokens[row].flatten(), real[row].flatten()
        end = used * chunk_size
        assert flat[end - len(prompt) : end].tolist() == prompt
        assert marks.nonzero().flatten().tolist() == list(range(end - len(prompt), end))
        assert (flat[~marks] == 3).all()


def test_chunk_prompts_refuses():
    with pytest.raises(ValueError, match="at least one prompt; got none"):
        chunk_prompts([], 2, fill_id=0)
    with pytest.raises(ValueError, match=r"prompts\[1\] must hold at least one token"):
        chunk_prompts([[1], []], 2, fill_id=0)


def batch(lengths, real=None):
    rows, positions = len(lengths), sum(lengths[0])
    tokens = torch.zeros(rows, positions, 2, dtype=torch.long)
    real = torch.ones(rows, positions, 2, dtype=torch.bool) if real is None else real
    return ChunkBatch(tokens, real, lengths)


def test_the_first_chunk_of_a_document_is_not_asked_for():
    assert batch(((2, 3), (5,))).predictable().tolist() == [
        [False, True, False, True, True],
        [False, True, True, True, True],
    ]


def test_an_empty_chunk_is_not_asked_for_and_a_partial_one_is():
    real = torch.ones(1, 4, 2, dtype=torch.bool)
    real[0, 2, 1] = False
    real[0, 3] = False
    assert batch(((4,),), real).predictable().tolist() == [[False, True, True, False]]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_document_loses_exactly_its_first_chunk(lengths):
    predictable = batch((tuple(lengths),)).predictable()[0]
    for document in predictable.split(lengths):
        assert document.tolist() == [False] + [True] * (len(document) - 1)


@pytest.mark.parametrize(
    ("lengths", "match"),
    [
        (((4,),), "one tuple for each of 2 rows; got 1"),
        (((4,), (3,)), r"add up to 4 positions in every row; row 1 has \(3,\)"),
        (((4, 0), (4,)), r"must be positive .* row 0 has \(4, 0\)"),
        (((4,), ()), r"row 1 has \(\)"),
    ],
)
def test_bad_packing_is_refused(lengths, match):
    tokens = torch.zeros(2, 4, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=match):
        ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths)


def test_tokens_and_mask_must_agree():
    tokens = torch.zeros(2, 4, 3, dtype=torch.long)
    with pytest.raises(TypeCheckError, match="parameter 'real'"):
        ChunkBatch(tokens, torch.ones(1, 4, 3, dtype=torch.bool), ((4,), (4,)))


def test_to_moves_both_tensors():
    moved = batch(((2, 3),)).to(torch.device("meta"))
    assert moved.tokens.device.type == moved.real.device.type == "meta"
    assert moved.lengths == ((2, 3),)


class TestScored:
    def test_chunks_that_are_not_scored_are_not_asked_for(self):
        scored = torch.tensor([[True, False, True, True, False]])
        tokens = torch.zeros(1, 5, 2, dtype=torch.long)
        real = torch.ones_like(tokens, dtype=torch.bool)
        real[0, 3] = False
        # The first of a document and an empty chunk stay out, whatever `scored` says.
        asked = ChunkBatch(tokens, real, ((2, 3),), scored).predictable()
        assert asked.tolist() == [[False, False, False, False, False]]
        asked = ChunkBatch(tokens, real, ((1, 4),), scored).predictable()
        assert asked.tolist() == [[False, False, True, False, False]]

    def test_it_must_have_one_mark_for_each_chunk(self):
        tokens = torch.zeros(2, 4, 3, dtype=torch.long)
        real = torch.ones_like(tokens, dtype=torch.bool)
        with pytest.raises(TypeCheckError, match="parameter 'scored'"):
            ChunkBatch(tokens, real, ((4,), (4,)), torch.ones(2, 3, dtype=torch.bool))

    def test_some_rows_and_another_device_keep_it(self):
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(9, (3, 4, 2), generator=generator)
        real, scored = tokens > 3, torch.rand(3, 4, generator=generator) < 0.5
        given = ChunkBatch(tokens, real, ((4,), (1, 3), (2, 2)), scored)
        some = given.rows(slice(1, None, 2))
        assert torch.equal(some.tokens, tokens[[1]]) and torch.equal(some.real, real[[1]])
        assert some.lengths == ((1, 3),) and torch.equal(some.scored, scored[[1]])
        assert given.to(torch.device("meta")).scored.device.type == "meta"
        plain = batch(((2, 3),))
        assert plain.rows(slice(1)).scored is None is plain.to(torch.device("cpu")).scored


class TestPairs:
    @given(texts, texts, st.integers(1, 5), st.booleans())
    def test_the_response_begins_at_a_chunks_edge(self, prompt, response, chunk_size, ends):
        end_id = 55 if ends else None
        tokens, real, scored = chunk_pair(prompt, response, chunk_size, fill_id=7, end_id=end_id)
        answer = response + ([55] if ends else [])
        assert tokens[real].tolist() == prompt + answer
        assert (tokens[~real] == 7).all()
        assert tokens[scored][real[scored]].tolist() == answer
        # As few chunks as the edge allows, and the prompt laid as it is for generation.
        given, marks, (chunks,) = chunk_prompts([prompt], chunk_size, fill_id=7)
        assert len(tokens) == chunks + (len(answer) + chunk_size - 1) // chunk_size
        assert torch.equal(tokens[:chunks], given[0]) and torch.equal(real[:chunks], marks[0])
        assert scored.tolist() == [False] * chunks + [True] * (len(tokens) - chunks)
        assert real[chunks].any() and real[chunks, 0]

    def test_the_docstrings_example(self):
        tokens, real, scored = chunk_pair(
            [1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15], 4, fill_id=0, end_id=99
        )
        assert tokens.tolist() == [
            [0, 0, 1, 2], [3, 4, 5, 6], [11, 12, 13, 14], [15, 99, 0, 0]
        ]  # fmt: skip
        assert real.sum(-1).tolist() == [2, 4, 4, 2]
        assert scored.tolist() == [False, False, True, True]

    @pytest.mark.parametrize(
        ("prompt", "response", "chunk_size", "match"),
        [
            ([], [1], 2, "prompt must hold at least one token; got none"),
            ([1], [], 2, "response must hold at least one token; got none"),
            ([1], [1], 0, "chunk_size must be at least 1; got 0"),
        ],
    )
    def test_refuses(self, prompt, response, chunk_size, match):
        with pytest.raises(ValueError, match=match):
            chunk_pair(prompt, response, chunk_size, fill_id=0, end_id=0)


class TestAlignedLossMask:
    @given(st.data(), st.integers(1, 4), st.integers(1, 5), st.integers(1, 4))
    def test_chunk_by_chunk(self, data, rows, positions, chunk_size):
        """A loop over chunks is the oracle: all of the text, none of it, or an error."""
        draw = st.lists(st.booleans(), min_size=chunk_size, max_size=chunk_size)
        whole = st.booleans().map(lambda value: [value] * chunk_size)
        grid = st.lists(
            st.lists(whole | whole | draw, min_size=positions, max_size=positions),
            min_size=rows, max_size=rows,
        )  # fmt: skip
        mask, real = (torch.tensor(data.draw(grid)) for _ in range(2))
        wanted, wrong = torch.zeros(rows, positions, dtype=torch.bool), []
        for row in range(rows):
            for position in range(positions):
                found = {
                    bool(m) for m, r in zip(mask[row, position], real[row, position], strict=True)
                    if r
                }  # fmt: skip
                wanted[row, position] = True in found
                if len(found) == 2:
                    wrong.append((row, position))
        if not wrong:
            assert torch.equal(aligned_loss_mask(mask, real=real), wanted)
            return
        row, position = wrong[0]
        with pytest.raises(ValueError, match=rf"; row {row}, position {position} has "):
            aligned_loss_mask(mask, real=real)

    def test_takes_back_what_a_pair_scores(self):
        _, real, scored = chunk_pair([1, 2, 3], [4, 5, 6, 7, 8], 4, fill_id=0)
        per_token = (torch.arange(12) >= 4).view(3, 4) & real
        assert torch.equal(aligned_loss_mask(per_token, real=real), scored)

    def test_an_edge_inside_a_chunk_is_named(self):
        mask = torch.ones(2, 3, 4, dtype=torch.bool)
        assert aligned_loss_mask(mask).all()
        mask[1, 2, 0] = False
        with pytest.raises(
            ValueError,
            match=r"on chunk edges, .*; row 1, position 2 has \[False, True, True, True\]\. Pad ",
        ):
            aligned_loss_mask(mask)
        # Without a batch axis, with two of them, and where the text alone is looked at.
        with pytest.raises(ValueError, match=r"none of them; position 2 has "):
            aligned_loss_mask(mask[1])
        with pytest.raises(ValueError, match=r"; row 0, 1, position 2 has "):
            aligned_loss_mask(mask[None])
        real = torch.ones_like(mask)
        real[1, 2, 0] = False
        assert aligned_loss_mask(mask, real=real).all()
