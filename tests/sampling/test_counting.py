"""Leaders and counts against a dictionary of tuples."""

import collections

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from calmkit.sampling import counting
from calmkit.sampling.counting import count_copies, leaders_of


def tuples(candidates, row):
    return [tuple(chunk) for chunk in candidates[:, row].tolist()]


def check(candidates, leaders):
    """Equal candidates share a leader, which is equal to them; others have another."""
    counts = count_copies(leaders)
    for row in range(candidates.shape[1]):
        chunks = tuples(candidates, row)
        leader = leaders[row].tolist()
        assert [chunks[i] for i in leader] == chunks
        assert len(set(leader)) == len(set(chunks))
        copies = collections.Counter(chunks)
        for i, count in enumerate(counts[row].tolist()):
            assert count == (copies[chunks[i]] if leader[i] == i else 0)


def random_candidates(shape, low, high, seed):
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


shapes = st.tuples(st.integers(1, 40), st.integers(1, 4), st.sampled_from([1, 2, 3, 4, 6, 25]))
# Few tokens, many, more than fit together into 63 bits, and the largest and smallest there are.
ranges = st.sampled_from([(0, 2), (-1, 2), (0, 128_257), (0, 2**40), (-(2**62), 2**62)])


@given(shapes, ranges, st.integers(0, 99), st.booleans())
@example((40, 2, 25), (0, 2**40), 0, True)
def test_leaders_are_those_of_a_dictionary(shape, limits, seed, repeat):
    candidates = random_candidates(shape, *limits, seed)
    if repeat:  # equal chunks also where tokens are rarely equal
        pick = random_candidates((shape[0],), 0, max(shape[0] // 3, 1), seed + 1)
        candidates = candidates[pick]
    check(candidates, leaders_of(candidates))


@given(shapes, st.integers(0, 99))
def test_sorting_and_hashing_find_the_same_groups(shape, seed):
    keys = random_candidates((shape[1], shape[0]), 0, 10, seed)
    for leaders in (counting._by_sorting(keys), counting._by_hashing(keys)):
        check(keys.T[..., None], leaders)


def test_extreme_integers():
    ends = torch.iinfo(torch.long)
    candidates = torch.tensor([[ends.min, 0], [ends.max, 0], [ends.min, 0], [-1, 0]])[:, None]
    check(candidates, leaders_of(candidates))


@pytest.mark.parametrize("spread", [1, 2**20, 2**40])
def test_keys_that_share_buckets_are_told_apart(spread):
    """So many different keys that some share a bucket at the first try, the second and so on."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randperm(50_000, generator=generator)[None] * spread
    assert (counting._by_hashing(keys)[0] == torch.arange(50_000)).all()
    keys = torch.randint(-(2**62), 2**62, (1, 50_000), generator=generator)
    assert (counting._by_hashing(keys)[0] == torch.arange(50_000)).all()


def test_a_leader_is_the_last_of_its_kind():
    """Whichever other rows there are: the same seed chooses the same chunk."""
    candidates = random_candidates((50, 6, 2), 0, 3, 0)
    together = leaders_of(candidates)
    for row in range(6):
        chunks = tuples(candidates, row)
        last = {chunk: i for i, chunk in enumerate(chunks)}
        assert together[row].tolist() == [last[chunk] for chunk in chunks]


def test_only_valid_candidates_count():
    candidates = torch.tensor([5, 5, 7, 5])[:, None, None]
    valid = torch.tensor([[True, True, True, False]])
    counts = count_copies(leaders_of(candidates), valid)
    # The third copy leads, and is none of those that count.
    assert counts.tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize("shape", [(0, 3, 2), (4, 0, 2), (4, 3, 0)])
def test_empty(shape):
    leaders = leaders_of(torch.zeros(shape, dtype=torch.long))
    assert leaders.shape == (shape[1], shape[0])
