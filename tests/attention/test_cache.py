"""The cache writes behind each row's own length, and only there."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError

from calmkit.attention import KVCache


def cache(lengths, capacity=6, layers=2):
    shape = (layers, len(lengths), capacity, 1, 2)
    return KVCache(torch.zeros(shape), torch.zeros(shape), torch.tensor(lengths))


def test_append_writes_behind_each_row():
    ragged = cache([1, 4])
    keys = torch.arange(1.0, 9.0).view(2, 2, 1, 2)
    ragged.append(1, keys, -keys)
    for row, start in enumerate([1, 4]):
        torch.testing.assert_close(ragged.keys[1, row, start : start + 2], keys[row])
        torch.testing.assert_close(ragged.values[1, row, start : start + 2], -keys[row])
    assert ragged.keys.count_nonzero() == keys.numel()
    assert ragged.lengths.tolist() == [1, 4]
    ragged.advance(2)
    assert ragged.lengths.tolist() == [3, 6]


def test_full_cache_is_refused():
    full = cache([1, 5])
    new = torch.ones(2, 1, 1, 2)
    full.append(0, new, new)
    full.advance(1)
    with pytest.raises(ValueError, match="the cache has 6, 6 are in use and 1 more are needed"):
        full.append(0, new, new)
    assert full.keys.count_nonzero() == 4


def test_rows_that_were_cut_have_room_again():
    cut = cache([6, 6]).select(torch.tensor([0, 1]), torch.tensor([5, 2]))
    new = torch.ones(2, 1, 1, 2)
    cut.append(0, new, new)
    cut.advance(1)
    with pytest.raises(ValueError, match="6 are in use"):
        cut.append(0, new, new)


def test_select_copies():
    old = cache([2, 3])
    old.keys.normal_()
    new = old.select(torch.tensor([1, 1, 0]), torch.tensor([3, 1, 2]))
    torch.testing.assert_close(new.keys, old.keys[:, [1, 1, 0]])
    assert new.lengths.tolist() == [3, 1, 2]
    before = old.keys.clone()
    new.append(0, torch.ones(3, 1, 1, 2), torch.ones(3, 1, 1, 2))
    new.advance(1)
    torch.testing.assert_close(old.keys, before, rtol=0, atol=0)
    assert old.lengths.tolist() == [2, 3]


def test_select_writes_over_memory_that_is_given():
    """As without it, whatever stood there before, and for fewer rows than it has."""
    old, used = cache([2, 6, 3]), cache([6, 6])
    old.keys.normal_(), old.values.normal_(), used.keys.fill_(math.nan)
    at = torch.tensor([1, 2]), torch.tensor([5, 1])
    want, got = old.select(*at), old.select(*at, out=used)
    assert got.lengths.tolist() == [5, 1] and got.keys.data_ptr() == used.keys.data_ptr()
    torch.testing.assert_close(got.keys[:, :, :5], want.keys[:, :, :5], rtol=0, atol=0)
    torch.testing.assert_close(got.values[:, :, :5], want.values[:, :, :5], rtol=0, atol=0)
    one = old.select(torch.tensor([0]), torch.tensor([2]), out=got)
    torch.testing.assert_close(one.keys[:, :, :2], old.keys[:, :1, :2], rtol=0, atol=0)
    assert one.append(0, *torch.ones(2, 1, 1, 1, 2))[0].shape == (1, 3, 1, 2)
    with pytest.raises(ValueError, match="out must hold 3 rows of capacity 6; it has 2 of 6"):
        old.select(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), out=used)


def test_select_cannot_lengthen_a_row():
    with pytest.raises(ValueError, match=r"at most those of the rows, \[3, 2\]; got \[3, 3\]"):
        cache([2, 3]).select(torch.tensor([1, 0]), torch.tensor([3, 3]))


@pytest.mark.parametrize("lengths", [[7, 0], [-1, 0]])
def test_lengths_out_of_range_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths must be in \[0, capacity = 6\]"):
        cache(lengths)


def test_shapes_are_checked():
    with pytest.raises(TypeCheckError, match="parameter 'values'"):
        KVCache(torch.zeros(1, 2, 3, 1, 2), torch.zeros(1, 2, 4, 1, 2), torch.tensor([0, 0]))
    with pytest.raises(TypeCheckError, match="parameter 'values'"):
        cache([0, 0]).append(0, torch.zeros(2, 1, 1, 2), torch.zeros(1, 1, 1, 2))


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="2 rows"):
        cache([0, 0]).append(0, torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
