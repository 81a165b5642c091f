"""The chunk grid: nothing is lost, everything else is marked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.chunking import ChunkBatch, chunk_prompts, chunk_tokens

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
