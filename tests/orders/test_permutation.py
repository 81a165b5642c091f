"""Laws of the keyed order: a bijection for every size and key, and uniform over keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from calmkit.orders import permutation, permuted, words

KEYS = words(1, np.arange(20_000))


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_it_is_a_bijection(size, key):
    assert sorted(permuted(np.arange(size), size, key).tolist()) == list(range(size))


@pytest.mark.parametrize("size", range(1, 40))
def test_it_is_a_bijection_of_every_small_size(size):
    for key in range(20):
        assert sorted(permuted(np.arange(size), size, key).tolist()) == list(range(size))


def test_large_sizes_stay_in_range_and_do_not_meet():
    size = 10**10 + 19
    got = permuted(np.arange(size - 5000, size), size, 3)
    assert got.min() >= 0 and got.max() < size
    assert len(set(got.tolist())) == 5000
    assert abs(got.mean() / size - 0.5) < 6 * (1 / 12 / 5000) ** 0.5


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2**64 - 1)), min_size=1, max_size=5))
def test_each_index_may_have_a_size_and_a_key_of_its_own(pairs):
    sizes, keys = (np.array(column, dtype=np.uint64) for column in zip(*pairs, strict=True))
    got = permuted(sizes - np.uint64(1), sizes, keys)
    wanted = [int(permuted(np.array([n - 1]), n, key)[0]) for n, key in pairs]
    assert got.tolist() == wanted


def surprise(counts):
    """The chance of counts as uneven as these if all are equally likely."""
    expected = counts.sum() / counts.size
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), counts.size - 1)


def surprises(order, size):
    """Of where index 0 goes and where index `size - 1` goes, and of where a pair of them goes."""
    first, last = (order(np.full(len(KEYS), i), size, KEYS) for i in (0, size - 1))
    together = np.bincount(first * size + last, minlength=size * size).reshape(size, size)
    return [
        surprise(np.bincount(first, minlength=size)),
        surprise(np.bincount(last, minlength=size)),
        surprise(together[~np.eye(size, dtype=bool)]),
    ]


SIZES = [3, 5, 8, 12, 17, 40]


@pytest.mark.parametrize("size", SIZES)
def test_over_keys_every_place_is_equally_likely(size):
    assert min(surprises(permuted, size)) > 1e-6 / (3 * len(SIZES))


@pytest.mark.parametrize("size", SIZES)
def test_a_ring_that_is_turned_is_no_random_order(size):
    """Each index alone goes anywhere; two of them stay neighbours."""

    def turned(indices, size, keys):
        return ((indices.astype(np.uint64) + keys % np.uint64(size)) % np.uint64(size)).astype(int)

    found = surprises(turned, size)
    assert min(found[:2]) > 1e-6 and found[2] < 1e-12


@pytest.mark.parametrize("size", [5, 8, 12, 17])
def test_a_network_of_few_rounds_is_no_random_order(size, monkeypatch):
    monkeypatch.setattr(permutation, "_ROUNDS", 4)
    assert min(surprises(permuted, size)) < 1e-6
