"""The cache of states writes behind each row's own length, and can be cut anywhere."""

import pytest
import torch

from calmkit.backbones.state_cache import StateCache


def cache(lengths, capacity=6, layers=2):
    states = torch.randn(
        layers, len(lengths), capacity, 3, generator=torch.Generator().manual_seed(0)
    )
    return StateCache(states, torch.tensor(lengths))


def test_append_writes_behind_each_row():
    ragged = cache([1, 4])
    before, new = ragged.states.clone(), torch.ones(2, 2, 3)
    ragged.append(1, new)
    for row, start in enumerate([1, 4]):
        torch.testing.assert_close(ragged.states[1, row, start : start + 2], new[row])
    assert (ragged.states != before).sum() == new.numel()
    assert ragged.lengths.tolist() == [1, 4]
    ragged.advance(2)
    assert ragged.lengths.tolist() == [3, 6]


def test_last_is_the_state_at_each_rows_end():
    ragged = cache([1, 0, 6])
    want = torch.stack([ragged.states[1, 0, 0], torch.zeros(3), ragged.states[1, 2, 5]])
    torch.testing.assert_close(ragged.last(1), want, rtol=0, atol=0)


def test_full_cache_is_refused():
    full = cache([1, 5])
    full.append(0, torch.ones(2, 1, 3))
    full.advance(1)
    with pytest.raises(ValueError, match="the cache has 6, 6 are in use and 1 more are needed"):
        full.append(0, torch.ones(2, 1, 3))


def test_select_copies_and_cuts():
    old = cache([2, 3])
    new = old.select(torch.tensor([1, 1, 0]), torch.tensor([3, 1, 2]))
    assert new.lengths.tolist() == [3, 1, 2]
    want = torch.stack([old.states[0, 1, 2], old.states[0, 1, 0], old.states[0, 0, 1]])
    torch.testing.assert_close(new.last(0), want)
    before = old.states.clone()
    new.append(0, torch.ones(3, 3, 3))  # fits since the rows were cut
    new.advance(3)
    torch.testing.assert_close(old.states, before, rtol=0, atol=0)
    assert old.lengths.tolist() == [2, 3]


def test_select_cannot_lengthen_a_row():
    with pytest.raises(ValueError, match=r"lengths must be at most those of the rows, \[3\]"):
        cache([2, 3]).select(torch.tensor([1]), torch.tensor([4]))


@pytest.mark.parametrize("lengths", [[7], [-1]])
def test_lengths_must_be_in_range(lengths):
    with pytest.raises(ValueError, match=r"lengths must be in \[0, capacity = 6\]"):
        cache(lengths)


def test_states_for_other_rows_are_refused():
    with pytest.raises(ValueError, match=r"have the 2 rows of the cache; got shape \(1, 1, 3\)"):
        cache([0, 0]).append(0, torch.ones(1, 1, 3))
