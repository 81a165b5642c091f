"""`AttentionMask.dense` against its words, key by key."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.attention import AttentionMask

CPU = torch.device("cpu")


def sees(query, key, *, window=None, documents=None, causal=True):
    """Whether a query at a key position may see a key: the definition in words."""
    if causal and key > query:
        return False
    if window is not None and query - key >= window:
        return False
    return documents is None or documents[query] == documents[key]


def table(q_len, kv_len, **rule):
    start = kv_len - q_len
    return [[sees(start + i, j, **rule) for j in range(kv_len)] for i in range(q_len)]


windows = st.none() | st.integers(1, 4)


@given(st.integers(0, 5), st.integers(0, 5), windows)
def test_causal_is_aligned_bottom_right(q_len, more, window):
    dense = AttentionMask.causal(window).dense(q_len, q_len + more, CPU)
    assert dense[0].tolist() == table(q_len, q_len + more, window=window)


def test_full_sees_everything():
    assert AttentionMask.full().dense(2, 3, CPU).all()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), windows, st.data())
def test_packed_documents_do_not_see_each_other(lengths, window, data):
    total = sum(lengths)
    q_len = data.draw(st.integers(1, total))
    other = (total,)
    documents = [d for d, size in enumerate(lengths) for _ in range(size)]
    dense = AttentionMask.packed([lengths, other], window).dense(q_len, total, CPU)
    assert dense[0].tolist() == table(q_len, total, documents=documents, window=window)
    assert dense[1].tolist() == table(q_len, total, window=window)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 3), windows, st.data())
def test_cached_rows_use_their_own_keys(key_lengths, spare, window, data):
    q_len = data.draw(st.integers(1, min(key_lengths)))
    capacity = max(key_lengths) + spare
    dense = AttentionMask.cached(torch.tensor(key_lengths), window).dense(q_len, capacity, CPU)
    for row, used in zip(dense, key_lengths, strict=True):
        assert row[:, :used].tolist() == table(q_len, used, window=window)
        assert not row[:, used:].any()


def test_positions_start_anew_in_each_document():
    assert AttentionMask.causal().positions(3, CPU).tolist() == [[0, 1, 2]]
    packed = AttentionMask.packed([(1, 3), (4,)])
    assert packed.positions(4, CPU).tolist() == [[0, 0, 1, 2], [0, 1, 2, 3]]
    cached = AttentionMask.cached(torch.tensor([2, 5]))
    assert cached.positions(2, CPU).tolist() == [[0, 1], [3, 4]]


def test_rows():
    assert AttentionMask.causal().rows is None
    assert AttentionMask.packed([(1, 3), (4,)]).rows == 2
    assert AttentionMask.cached(torch.tensor([2, 5, 1])).rows == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: AttentionMask.causal(window=0), "window must be at least 1.* got 0"),
        (lambda: AttentionMask(window=-1), "window must be at least 1.* got -1"),
        (lambda: AttentionMask(is_causal=False, window=2), "window needs a causal mask"),
        (lambda: AttentionMask.packed([]), "one entry for each row; got none"),
        (lambda: AttentionMask.packed([(2, 0)]), r"positive; row 0 has \(2, 0\)"),
        (lambda: AttentionMask.packed([(2,), ()]), r"positive; row 1 has \(\)"),
        (lambda: AttentionMask.packed([(2, 1), (2,)]), "row 0 has 3, row 1 has 2"),
        (
            lambda: AttentionMask(lengths=((2,),), key_lengths=torch.tensor([2])),
            "key_lengths needs a causal mask without packed documents",
        ),
        (
            lambda: AttentionMask(is_causal=False, key_lengths=torch.tensor([2])),
            "key_lengths needs a causal mask",
        ),
    ],
)
def test_meaningless_masks_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_documents_must_fill_the_row():
    mask = AttentionMask.packed([(2, 1)])
    for ask in (lambda: mask.dense(4, 4, CPU), lambda: mask.positions(4, CPU)):
        with pytest.raises(ValueError, match="add up to 4 positions; they add up to 3"):
            ask()


@pytest.mark.parametrize("used", [[4, 2], [0, -1]])
def test_rows_must_hold_the_keys_in_use(used):
    mask = AttentionMask.cached(torch.tensor(used))
    with pytest.raises(ValueError, match=r"key_lengths must be from 0 to the 3 keys.* got \["):
        mask.check_length(3)


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (AttentionMask.packed([(2, 1), (3,)], window=2), {"documents", "places", "starts"}),
        (AttentionMask.cached(torch.tensor([1, 2])), {"key_lengths"}),
        (AttentionMask.causal(), set()),
    ],
)
def test_a_mask_moves_with_all_its_tensors(mask, names):
    assert mask.to(CPU) is mask
    moved = mask.to(torch.device("meta"))
    tensors = {name for name, value in vars(moved).items() if isinstance(value, torch.Tensor)}
    assert tensors == names
    assert all(getattr(moved, name).device.type == "meta" for name in names)
    assert (moved.lengths, moved.window) == (mask.lengths, mask.window)
    assert all(getattr(mask, name).device == CPU for name in names)


def test_documents_start_where_rows_laid_end_to_end_have_them():
    assert AttentionMask.packed([(2, 1), (3,)]).starts.tolist() == [0, 2, 3, 6]


def test_a_mask_shows_how_it_was_made():
    """Not the tensors of all positions that it holds besides."""
    assert repr(AttentionMask.packed([(2, 1)], window=2)) == (
        "AttentionMask(is_causal=True, window=2, lengths=((2, 1),), key_lengths=None)"
    )


def test_key_lengths_are_integers():
    with pytest.raises(TypeCheckError, match="parameter 'key_lengths'"):
        AttentionMask.cached(torch.tensor([1.0]))
