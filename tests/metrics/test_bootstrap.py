"""Bootstrap of a ratio: closed form for equal counts, enumeration for unequal ones."""

import itertools
import math

import pytest
import torch

from calmkit.metrics import bootstrap_ratio
from calmkit.metrics.bootstrap import errors_of


def test_equal_counts_have_a_closed_form():
    """The mean of G draws from G values has variance (population variance) / G."""
    sums = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    counts = torch.full((30, 2), 4.0)
    result = bootstrap_ratio(sums, counts, resamples=20_000)
    want = (sums / 4).var(dim=0, correction=0).div(30).sqrt()
    for metric, estimate in enumerate(result):
        assert estimate.value == pytest.approx(float((sums[:, metric] / 4).mean()))
        # A standard deviation from R draws has a relative error of 1 / sqrt(2 R) = 0.5 %.
        assert estimate.standard_error == pytest.approx(float(want[metric]), rel=4.9 * 0.005)


def test_unequal_counts_by_enumeration():
    """All 4^4 resamples of four documents; draws without any token are left out."""
    sums, counts = torch.tensor([3.0, 1.0, 7.0, 0.0]), torch.tensor([4.0, 3.0, 8.0, 0.0])
    ratios = torch.stack([
        sums[list(chosen)].sum() / counts[list(chosen)].sum()
        for chosen in itertools.product(range(4), repeat=4)
        if set(chosen) != {3}
    ])  # fmt: skip
    (got,) = bootstrap_ratio(sums[:, None], counts[:, None], resamples=50_000)
    assert got.value == pytest.approx(11 / 15)
    assert got.standard_error == pytest.approx(float(ratios.std(correction=0)), rel=0.03)


def test_draws_without_a_token_say_nothing():
    """Every draw that has any token has ratio 2: nothing varies."""
    counts = torch.tensor([[1.0], [1.0], [0.0], [0.0]])
    (got,) = bootstrap_ratio(2 * counts, counts)
    assert (got.value, got.standard_error) == (2.0, 0.0)


def test_metrics_are_told_apart():
    """Each as if it were alone, also beside one that has no value in many draws."""
    sums = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(6, 3)
    counts[1:, 1] = 0.0
    sums *= counts
    together = bootstrap_ratio(sums, counts)
    for metric in range(3):
        (alone,) = bootstrap_ratio(sums[:, [metric]], counts[:, [metric]])
        got = together[metric]
        assert got.value == pytest.approx(alone.value)
        if metric == 1:  # all its tokens are in one group
            assert got.standard_error is None and alone.standard_error is None
            assert got.interval is alone.interval is None
        else:
            assert got.standard_error == pytest.approx(alone.standard_error, abs=1e-7)
            assert got.interval == pytest.approx(alone.interval)


def test_one_draw_has_no_error():
    errors = errors_of(torch.tensor([[2.0, 2.0], [math.nan, 4.0], [math.nan, math.nan]]))
    torch.testing.assert_close(errors, torch.tensor([math.nan, 2**0.5]), equal_nan=True)


def test_seeded():
    sums, counts = torch.arange(5.0)[:, None], torch.ones(5, 1)
    errors = [bootstrap_ratio(sums, counts, seed=s)[0].standard_error for s in (0, 0, 1)]
    assert errors[0] == errors[1] != errors[2]


def test_bad_arguments_are_named():
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="at least 2 groups to resample; got 1"):
        bootstrap_ratio(one, one)
    two = torch.ones(2, 1)
    with pytest.raises(ValueError, match="one has no token at all"):
        bootstrap_ratio(two, 0 * two)
    with pytest.raises(ValueError, match="resamples must be at least 2"):
        bootstrap_ratio(two, two, resamples=1)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\); got 95"):
        bootstrap_ratio(two, two, level=95.0)
