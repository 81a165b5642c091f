"""Brier scores: explicit pairs, unbiasedness by enumeration, orientation."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.metrics import brier, brier_ngram, expected_brier, softmax_brier
from calmkit.scoring.discrete import brier_score, brier_score_of


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(1, 4), st.sampled_from([(), (3,)]))
def test_is_the_mean_over_all_pairs(seed, samples, order, batch):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(2, (samples, *batch, 5), generator=generator)
    target = torch.randint(2, (*batch, 5), generator=generator)
    got = brier_ngram(draws, target, order)
    assert got.shape == (*batch, 6 - order)
    rows, truth = draws.reshape(samples, -1, 5).tolist(), target.reshape(-1, 5).tolist()
    for row, values in enumerate(got.reshape(-1, 6 - order).tolist()):
        for start, value in enumerate(values):
            window = slice(start, start + order)
            y = truth[row][window]
            terms = []
            for first, second in itertools.combinations(rows, 2):
                a, b = first[row][window], second[row][window]
                terms.append((a == y) + (b == y) - (a == b))
            assert value == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("samples", [2, 3, 4])
def test_unbiased_by_enumeration(samples):
    """All lists of draws of a three-token law, each with its probability."""
    p = torch.tensor([0.5, 0.3, 0.2])
    for y in range(3):
        mean = sum(
            math.prod(p[list(draws)].tolist())
            * float(brier_ngram(torch.tensor(draws)[:, None], torch.tensor([y]), 1))
            for draws in itertools.product(range(3), repeat=samples)
        )
        assert mean == pytest.approx(float(2 * p[y] - p.square().sum()), abs=1e-12)
        assert mean == pytest.approx(float(expected_brier(p, torch.tensor(y))), abs=1e-12)


def test_is_one_less_the_loss():
    """Higher is better here, lower is better in `calmkit.scoring`."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(2, (6, 5, 3), generator=generator)
    target = torch.randint(2, (5, 3), generator=generator)
    whole = brier_ngram(draws, target, 3).squeeze(-1)
    torch.testing.assert_close(whole, 1 - brier_score(draws, target), rtol=1e-14, atol=1e-14)
    p, y = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[0, 1], [2, 2]])
    loss = brier_score_of(p.expand(2, 2, 3), y)
    torch.testing.assert_close(expected_brier(p, y), 1 - loss, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("samples", [2, 3])
def test_pairs_of_tokens_are_unbiased_by_enumeration(samples):
    """Brier-2 at each start of three tokens from a Markov chain, over all lists of draws."""
    first = torch.tensor([0.7, 0.3], dtype=torch.float64)
    then = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)
    texts = torch.tensor(list(itertools.product(range(2), repeat=3)))
    law = first[texts[:, 0]] * then[texts[:, 0], texts[:, 1]] * then[texts[:, 1], texts[:, 2]]
    target = torch.tensor([0, 0, 1])
    mean = torch.zeros(2, dtype=torch.float64)
    for numbers in itertools.product(range(8), repeat=samples):
        mean += law[list(numbers)].prod() * brier_ngram(texts[list(numbers)], target, 2)
    for start in range(2):
        pairs = texts[:, start : start + 2]
        joint = {pair: float(law[(pairs == torch.tensor(pair)).all(-1)].sum())
                 for pair in itertools.product(range(2), repeat=2)}  # fmt: skip
        want = 2 * joint[tuple(target[start : start + 2].tolist())]
        want -= sum(q * q for q in joint.values())
        assert float(mean[start]) == pytest.approx(want, abs=1e-12)


def test_brier_is_of_all_tokens_together():
    generator = torch.Generator().manual_seed(1)
    draws = torch.randint(2, (5, 7, 3), generator=generator)
    target = torch.randint(2, (7, 3), generator=generator)
    assert torch.equal(brier(draws, target), brier_ngram(draws, target, 3)[:, 0])


def test_certain_predictions():
    draws = torch.zeros(5, 4, dtype=torch.long)
    assert brier_ngram(draws, draws[0], 4).tolist() == [1.0]
    assert brier_ngram(draws, draws[0] + 1, 4).tolist() == [-1.0]


def test_bad_arguments_are_named():
    draws = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="draws must hold at least 2 samples"):
        brier_ngram(draws[:1], draws[0], 1)
    with pytest.raises(ValueError, match="draws must hold at least 2 samples"):
        brier(draws[:1], draws[0])
    for order in (0, 5):
        with pytest.raises(ValueError, match=rf"order must be in \[1, 4\].*got {order}"):
            brier_ngram(draws, draws[0], order)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8])
def test_tokens_of_any_dtype(dtype):
    """As of int64."""
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(5, generator=generator).softmax(dim=0)
    draws = torch.randint(5, (4, 30, 6), generator=generator)
    target = torch.randint(5, (30, 6), generator=generator)
    low = draws.to(dtype), target.to(dtype)
    for got, want in (
        (brier(*low), brier(draws, target)),
        (brier_ngram(*low, 3), brier_ngram(draws, target, 3)),
        (expected_brier(p, low[1]), expected_brier(p, target)),
        (softmax_brier(p.log().expand(30, 6, 5), low[1]), expected_brier(p, target)),
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
