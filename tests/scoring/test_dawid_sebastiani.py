"""Dawid-Sebastiani score: loops, scoringrules, its law under a Gaussian, and what it misses."""

import itertools
import math

import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special
from score_problems import finite_problem, margins_mixed, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring.dawid_sebastiani import DawidSebastianiScore, dawid_sebastiani_score


@given(problems(samples=4), st.sampled_from([0.0, 0.1, 2.0]))
def test_matches_a_loop(problem, scale):
    x, mean = problem
    m, std = len(x), scale * mean.abs()
    want = torch.zeros(mean.shape[:-1])
    for index in itertools.product(*map(range, mean.shape)):
        xs = [float(x[(i, *index)]) for i in range(m)]
        center = sum(xs) / m
        variance = sum((v - center) ** 2 for v in xs) / (m - 1)
        error = ((float(mean[index]) - center) ** 2 + float(std[index]) ** 2) / variance
        log_variance = math.log(variance) - special.digamma((m - 1) / 2) + math.log((m - 1) / 2)
        want[index[:-1]] += log_variance + (m - 3) / (m - 1) * error - 1 / m
    got = DawidSebastianiScore().score(x, DiagonalGaussian(mean, std))
    torch.testing.assert_close(got, want)
    if scale == 0:
        torch.testing.assert_close(dawid_sebastiani_score(x, mean), want)


@given(problems(samples=4))
def test_matches_scoringrules(problem):
    """Whose score of the plain estimates says log s^2 where the outcome is the samples' mean."""
    x, y = problem
    m, rows = len(x), x.movedim(0, -1).numpy()

    def plain(outcome):
        score = scoringrules.dssuv_ensemble(outcome.numpy(), rows, backend="numpy")
        return torch.as_tensor(score).reshape(y.shape)

    log_variance = plain(x.mean(dim=0))
    factor, bias = (m - 3) / (m - 1), math.log((m - 1) / 2) - special.digamma((m - 1) / 2) - 1 / m
    want = (log_variance + bias + factor * (plain(y) - log_variance)).sum(dim=-1)
    torch.testing.assert_close(dawid_sebastiani_score(x, y), want)


@pytest.mark.parametrize("m", [4, 5, 8, 33])
@pytest.mark.parametrize("outcome", [0.0, 0.7])
def test_unbiased_under_a_gaussian(m, outcome):
    """The mean over x_ ~ N(mu, sigma^2/m) and s^2 ~ sigma^2 chi^2_k / k, by quadrature.

    The score sees samples through x_ and s only: they are put on a fixed pattern. In x_ it is a
    square, for which three Gauss-Hermite nodes are exact; in log chi^2 the trapezoidal rule is.
    """
    mu, sigma, k = 0.2, 1.5, m - 1
    pattern = torch.linspace(-1, 1, m)
    pattern = pattern / pattern.std()
    log_u = torch.linspace(-90.0, 7.0, 4000)
    log_density = k / 2 * (log_u - math.log(2)) - log_u.exp() / 2 - math.lgamma(k / 2)
    by_u = log_density.exp() * (log_u[1] - log_u[0])
    s = sigma * (log_u / 2).exp() / math.sqrt(k)
    node = mu + sigma / math.sqrt(m) * math.sqrt(3) * torch.tensor([-1.0, 0.0, 1.0])
    by_node = torch.tensor([1.0, 4.0, 1.0]) / 6
    samples = pattern[:, None, None] * s[:, None] + node
    target = DiagonalGaussian(torch.full((4000, 3, 1), outcome), torch.full((4000, 3, 1), 0.4))
    got = by_u @ DawidSebastianiScore().score(samples[..., None], target) @ by_node
    want = math.log(sigma**2) + ((outcome - mu) ** 2 + 0.4**2) / sigma**2
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-11, atol=1e-11)


def drawn(samples, outcome_std=1.0):
    """The score of each column of samples, of an outcome from N(0, outcome_std^2)."""
    zero = torch.zeros_like(samples[0])
    target = DiagonalGaussian(zero[:, None], torch.full_like(zero, outcome_std)[:, None])
    return DawidSebastianiScore().score(samples[..., None], target)


def standard_errors(scores, value):
    return (scores.mean() - value) / (scores.std() / len(scores) ** 0.5)


def test_unbiased_by_draws():
    """50 000 predictions of eight samples; without its corrections the score is rejected."""
    x = torch.randn(8, 50_000, generator=torch.Generator().manual_seed(0))
    assert standard_errors(drawn(x), 1.0).abs() < 4.9  # 1e-6 two-sided
    plain = x.var(dim=0).log() + (x.mean(dim=0).square() + 1) / x.var(dim=0)
    assert standard_errors(plain, 1.0) > 4.9


def test_another_shape_can_beat_a_gaussian_truth():
    """Uniform samples of the right mean and variance: proper among Gaussian margins only."""
    uniform = torch.rand(8, 50_000, generator=torch.Generator().manual_seed(0))
    x = (2 * uniform - 1) * math.sqrt(3)
    assert standard_errors(drawn(x), 1.0) < -4.9
    assert not DawidSebastianiScore().proper


def population_score(p, q, support):
    """E_{y ~ p} of the score of q, from its moments: twice a Gaussian's logarithmic score."""
    mean = q @ support
    std = (q @ (support - mean).square()).sqrt()
    prediction = DiagonalGaussian(mean.expand_as(support), std.expand_as(support))
    return p @ (-2 * prediction.log_prob(support) - support.shape[1] * math.log(2 * math.pi))


@given(seeds)
def test_population_score_is_proper(seed):
    """Its excess over the truth is twice the divergence of the two Gaussians."""
    support, p, q = finite_problem(seed, size=4)
    mean, other = p @ support, q @ support
    variance, rival = p @ (support - mean).square(), q @ (support - other).square()
    truth = (variance.log() + 1).sum()
    torch.testing.assert_close(population_score(p, p, support), truth, rtol=1e-12, atol=1e-12)
    excess = (rival / variance).log() + (variance + (mean - other).square()) / rival - 1
    assert (excess > -1e-12).all()
    torch.testing.assert_close(
        population_score(p, q, support), truth + excess.sum(), rtol=1e-12, atol=1e-12
    )


def test_population_score_is_not_strict():
    """Two signs, and a distribution on three points, with mean 0 and variance 1."""
    support = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]])
    p = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    q = torch.tensor([0.125, 0.0, 0.75, 0.0, 0.125])
    torch.testing.assert_close(
        population_score(p, q, support), population_score(p, p, support), rtol=1e-12, atol=1e-12
    )
    assert not DawidSebastianiScore().strictly_proper


@given(problems(samples=4), seeds)
def test_margins_are_all_it_sees(problem, seed):
    x, y = problem
    mixed = dawid_sebastiani_score(margins_mixed(x, seed), y)
    torch.testing.assert_close(mixed, dawid_sebastiani_score(x, y))


@given(problems(samples=4), st.floats(0.1, 10.0))
def test_translation_and_scale(problem, factor):
    x, y = problem
    base = dawid_sebastiani_score(x, y)
    torch.testing.assert_close(dawid_sebastiani_score(x + 3, y + 3), base)
    scaled = dawid_sebastiani_score(-factor * x, -factor * y)
    torch.testing.assert_close(scaled, base + 2 * y.shape[-1] * math.log(factor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_samples_lose(dtype):
    """They count as spread by eps times their distance to the outcome, whatever the unit."""
    eps = torch.finfo(dtype).eps
    x, y = torch.zeros(4, 1, dtype=dtype), torch.tensor([2.0], dtype=dtype)
    want = 2 * math.log(2 * eps) + (1 / 3) / eps**2
    got = dawid_sebastiani_score(x, y)
    torch.testing.assert_close(float(got), want, rtol=1e-5, atol=0.0)
