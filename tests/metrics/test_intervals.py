"""Confidence intervals: plain loops, scipy as an oracle, and coverage over drawn experiments."""

import math

import pytest
import torch
from scipy import stats

from calmkit.metrics import (
    DocumentScores,
    NgramSums,
    bootstrap_ratio,
    combine_brier,
    paired_difference,
    summarize_brier,
)
from calmkit.metrics.bootstrap import resampled_ratios
from calmkit.metrics.intervals import Variance, student_quantile

EXPERIMENTS = 3000
# Five standard deviations of a coverage that is 0.95 indeed.
SLACK = 5 * math.sqrt(0.95 * 0.05 / EXPERIMENTS)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lengths(documents, spread, seed=0):
    noise = torch.randn(documents, EXPERIMENTS, generator=generator(seed))
    return (400 * (spread * noise).exp()).round().clamp_min(20)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_quantiles_are_those_of_scipy(level):
    degrees = torch.tensor([1.0, 1.3, 2.0, 3.7, 10.0, 49.0, 400.0, 1e5])
    want = torch.from_numpy(stats.t.ppf((1 + level) / 2, degrees.numpy()))
    torch.testing.assert_close(student_quantile(level, degrees), want, rtol=1e-8, atol=0)
    torch.testing.assert_close(
        student_quantile(level, torch.tensor([1e7])),
        torch.tensor([stats.norm.ppf((1 + level) / 2)]), rtol=1e-6, atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\); got"):
        student_quantile(level, torch.ones(1))


@pytest.mark.parametrize("documents", [2, 7])
def test_equal_lengths_give_the_interval_of_a_mean(documents):
    values = torch.randn(documents, 3, generator=generator())
    for metric, got in enumerate(bootstrap_ratio(4 * values, torch.full_like(values, 4.0))):
        each = values[:, metric].numpy()
        error = stats.sem(each)
        want = stats.t.interval(0.95, documents - 1, loc=each.mean(), scale=error)
        assert got.interval == pytest.approx(want, rel=1e-9)


def test_unequal_lengths_as_a_loop():
    sums, counts = [3.0, 1.0, 7.0, 0.0, 2.0], [4.0, 3.0, 8.0, 0.0, 1.0]
    (got,) = bootstrap_ratio(torch.tensor(sums)[:, None], torch.tensor(counts)[:, None])
    there = [0, 1, 2, 4]  # a document without a token is none
    ratio, squares = sum(sums) / sum(counts), 0.0
    for g in there:
        squares += ((sum(sums) - sums[g]) / (sum(counts) - counts[g]) - ratio) ** 2
    degrees = 1 / sum((counts[g] / sum(counts)) ** 2 for g in there) - 1
    half = stats.t.ppf(0.975, degrees) * math.sqrt(squares * 3 / 4)
    assert got.value == ratio
    assert got.interval == pytest.approx((ratio - half, ratio + half), rel=1e-9)


def test_variances_add_up_as_in_welchs_test():
    one, other = (torch.randn(n, generator=generator(n)) * n for n in (4, 9))
    apart = [
        Variance((x.var() / len(x))[None], torch.tensor([len(x) - 1.0])) for x in (one, other)
    ]
    change = (one.mean() - other.mean())[None]
    want = stats.ttest_ind(one.numpy(), other.numpy(), equal_var=False).confidence_interval(0.95)
    assert (apart[0] + apart[1]).intervals(change)[0] == pytest.approx(tuple(want), rel=1e-9)
    scaled = (apart[0] + apart[1]).scaled(100.0).intervals(100 * change)[0]
    assert scaled == pytest.approx([100 * end for end in want], rel=1e-9)


def test_what_stands_in_one_document_has_no_interval():
    counts = torch.tensor([[5.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    alone, common = bootstrap_ratio(0.3 * counts, counts)
    assert alone.value == pytest.approx(0.3)
    assert alone.standard_error is None and alone.interval is None
    assert common.interval == pytest.approx((0.3, 0.3))


def covered(low_high, truth):
    low, high = low_high
    return float(((low <= truth) & (truth <= high)).double().mean())


def of_estimates(estimates, truth):
    return covered(torch.tensor([one.interval for one in estimates]).T, truth)


def of_percentiles(sums, counts, truth):
    drawn = resampled_ratios(sums, counts, resamples=200, seed=0)
    return covered(drawn.quantile(torch.tensor([0.025, 0.975]), dim=0), truth)


@pytest.mark.parametrize("documents", [2, 4, 8])
def test_coverage_with_equal_lengths(documents):
    """Every metric is an experiment. The central part of a bootstrap is rejected."""
    counts = lengths(documents, 0.0)
    sums = counts * (1 + torch.randn(counts.shape, generator=generator(1)))
    got = of_estimates(bootstrap_ratio(sums, counts, resamples=2), 1.0)
    assert abs(got - 0.95) < SLACK
    assert of_percentiles(sums, counts, 1.0) < 0.95 - SLACK


@pytest.mark.parametrize("documents", [4, 8, 20])
@pytest.mark.parametrize("world", ["normal", "heavy", "hits"])
def test_coverage_with_unequal_lengths(documents, world):
    counts = lengths(documents, 0.7)
    if world == "hits":  # of a hit rate with a value of its own in each document
        rates = -torch.rand((3, *counts.shape), generator=generator(1)).log().mean(dim=0)
        sums, truth = torch.poisson(0.05 * counts * rates, generator(2)), 0.05
    else:
        noise = torch.randn((4, *counts.shape), generator=generator(1))
        heavy = noise[0] / noise[1:].square().mean(dim=0).sqrt()  # Student's t, three degrees
        sums, truth = counts * (1 + (heavy if world == "heavy" else noise[0])), 1.0
    got = of_estimates(bootstrap_ratio(sums, counts, resamples=2), truth)
    assert 0.92 < got < 0.985
    if documents < 20:
        assert of_percentiles(sums, counts, truth) < 0.92


@pytest.mark.parametrize("documents", [2, 8])
def test_coverage_of_paired_differences(documents):
    counts = lengths(documents, 0.7)
    hard = torch.randn(counts.shape, generator=generator(1))
    names = tuple(map(str, range(EXPERIMENTS)))
    first, second = (
        DocumentScores(
            names,
            counts * (level + hard + 0.3 * torch.randn(counts.shape, generator=generator(seed))),
            counts, tuple(range(documents)), "documents",
        )
        for level, seed in ((1.2, 2), (1.0, 3))
    )  # fmt: skip
    got = of_estimates(paired_difference(first, second, resamples=2), 0.2)
    assert abs(got - 0.955) < 1.5 * SLACK


BRIER = torch.tensor([0.08, 0.015, 0.004, 0.001])


def ngrams(documents, seed, rates=BRIER):
    """Documents of 400 tokens, easy and hard ones; Brier-4 is below zero now and then."""
    hard = -torch.rand(4, documents, generator=generator(seed)).log().mean(dim=0)
    noise = torch.randn(documents, 4, generator=generator(1000 + seed))
    total = 400 * rates * hard[:, None] + 20 * torch.tensor([0.25, 0.12, 0.06, 0.02]) * noise
    total = total[:, :, None]
    return NgramSums(total / 2, torch.zeros_like(total), torch.full_like(total, 400.0))


def test_coverage_of_brier_lm():
    """Also where it is undefined: a twentieth of the time."""
    truth, held, undefined = float(combine_brier(BRIER)), 0, 0
    for seed in range(300):
        estimate = summarize_brier(ngrams(4, seed), resamples=2).estimate
        assert 0 <= estimate.interval[0] <= estimate.value <= estimate.interval[1] <= 100
        held += estimate.interval[0] <= truth <= estimate.interval[1]
        undefined += estimate.value == 0
    # 0.964 by the benchmark; five standard deviations of 300 experiments.
    assert held / 300 > 0.964 - 5 * 0.011
    assert 0.01 < undefined / 300 < 0.1


def test_interval_of_brier_lm_as_a_loop():
    """Of its linear part; 1 / (4 b_n) of the change of each Brier-n."""
    sums = ngrams(6, 3)
    total, counts = 2 * sums.hits.sum(-1), sums.counts.sum(-1)
    brier = total.sum(0) / counts.sum(0)
    score, squares = float(combine_brier(brier)), 0.0
    for g in range(6):
        left = (total.sum(0) - total[g]) / (counts.sum(0) - counts[g])
        change = sum(float((left[n] - brier[n]) / brier[n]) for n in range(4))
        squares += (score / 4 * change) ** 2
    half = stats.t.ppf(0.975, 5) * math.sqrt(squares * 5 / 6)
    want = max(0.0, score - half), score + half
    assert summarize_brier(sums).estimate.interval == pytest.approx(want, rel=1e-9)


def test_an_undefined_brier_lm_reaches_up_to_that_of_the_upper_ends():
    low = BRIER * torch.tensor([1.0, 1.0, 1.0, -1.0])
    result = summarize_brier(ngrams(6, 0, low))
    assert result.brier_lm == 0 and result.not_positive == (4,)
    ends = [min(one.interval[1], 100) for one in result.brier]
    high = math.prod(ends) ** 0.25 if min(ends) > 0 else 0.0
    assert result.estimate.interval == pytest.approx((0.0, high), rel=1e-9)


def test_without_a_level_there_are_no_intervals():
    result = summarize_brier(ngrams(6, 0), level=None)
    assert result.estimate.interval is None and result.brier[0].interval is None
    assert result.brier[0].standard_error > 0 and " to " not in str(result)
