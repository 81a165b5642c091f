"""Sums over n-grams: which count, and what is summed, by a plain loop over strings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.metrics import NgramSums, counted_ngrams

GROUPS = 3


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2))
def test_equals_a_plain_loop(seed, chunk_size, highest_order, more):
    """Brute force on lists: which n-grams count, their hits and their equal pairs."""
    generator = torch.Generator().manual_seed(seed)
    tokens, points, samples = max(chunk_size, highest_order) + more, 6, 3
    draws = torch.randint(2, (samples, points, tokens), generator=generator)
    target = torch.randint(2, (points, tokens), generator=generator)
    valid = torch.rand(points, tokens, generator=generator) < 0.8
    group = torch.randint(GROUPS, (points,), generator=generator)

    counted = counted_ngrams(valid, highest_order, chunk_size)
    got = NgramSums.of_draws(draws, target, counted, group, GROUPS)

    want = torch.zeros(3, GROUPS, highest_order, chunk_size, dtype=torch.float64)
    for point in range(points):
        for n in range(1, highest_order + 1):
            for start in range(chunk_size):
                if start + n > tokens or not all(valid[point, start : start + n].tolist()):
                    continue
                y = target[point, start : start + n].tolist()
                x = [d[point, start : start + n].tolist() for d in draws]
                pairs = [(x[a], x[b]) for a in range(samples) for b in range(a)]
                cell = int(group[point]), n - 1, start
                want[0][cell] += sum(one == y for one in x) / samples
                want[1][cell] += sum(a == b for a, b in pairs) / len(pairs)
                want[2][cell] += 1
    torch.testing.assert_close(torch.stack([got.hits, got.collisions, got.counts]), want)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 8])
def test_every_token_of_a_chunk_is_scored_for_every_chunk_size(chunk_size):
    tokens = -(-4 // chunk_size) * chunk_size
    counted = counted_ngrams(torch.ones(1, tokens, dtype=torch.bool), 4, chunk_size)[0]
    assert counted[0].tolist() == [True] * chunk_size
    # Where the chunk is extended, n-grams of any n start at each of its places.
    for n in (2, 3, 4):
        assert int(counted[n - 1].sum()) == min(chunk_size, tokens - n + 1)


def test_sums_add_up():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(2, (3, 10, 4), generator=generator)
    target = torch.randint(2, (10, 4), generator=generator)
    group = torch.arange(10) % GROUPS
    counted = counted_ngrams(torch.ones(10, 4, dtype=torch.bool), 4, 2)

    def sums(points):
        chosen = draws[:, points], target[points], counted[points], group[points]
        return NgramSums.of_draws(*chosen, GROUPS)

    whole = sums(slice(None))
    parts = NgramSums.zeros(GROUPS, 4, 2) + sums(slice(0, 3)) + sums(slice(3, None))
    for one, other in zip(vars(whole).values(), vars(parts).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


def test_scores_are_over_all_places():
    tables = (torch.rand(2, 2, 3, generator=torch.Generator().manual_seed(n)) for n in range(3))
    sums = NgramSums(*(table.double() for table in tables))
    scores = sums.scores((5, 8), "rows")
    assert scores.names == (
        "brier_1", "brier_2", "hit_1", "hit_2", "collision_1", "collision_2",
    )  # fmt: skip
    assert (scores.groups, scores.unit) == ((5, 8), "rows")
    for g in range(2):
        for n in range(2):
            hit = sum(sums.hits[g, n].tolist())
            collision = sum(sums.collisions[g, n].tolist())
            found = [float(scores.sums[g, column]) for column in (n, 2 + n, 4 + n)]
            assert found == pytest.approx([2 * hit - collision, hit, collision])
            counts = [float(scores.counts[g, column]) for column in (n, 2 + n, 4 + n)]
            assert counts == pytest.approx([float(sums.counts[g, n].sum())] * 3)
