"""Variogram score: loops, scoringrules, other integrals; unbiased, proper and what it misses."""

import itertools
import math
from functools import partial

import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special
from score_problems import expectation, finite_problem, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring.variogram import VariogramScore, variogram_score

exponents = st.sampled_from([0.2, 0.5, 0.8, 1.0])
every_exponent = pytest.mark.parametrize("p", [0.2, 0.5, 0.8, 1.0])


@st.composite
def weighted_problems(draw):
    x, y = draw(problems(latent=2))
    g = torch.Generator().manual_seed(draw(seeds))
    return x, y, torch.rand(x.shape[-1], x.shape[-1], generator=g)


def absolute_moment(mean, std, power):
    """E|N(mean, std^2)|^power by Kummer's function."""
    if std == 0:
        return abs(mean) ** power
    constant = (std * math.sqrt(2)) ** power * math.gamma((1 + power) / 2) / math.sqrt(math.pi)
    return constant * float(special.hyp1f1(-power / 2, 0.5, -((mean / std) ** 2) / 2))


def by_loop(x, mean, std, weights, p):
    """All ordered pairs of dimensions and of different samples; E of a product of outcomes."""
    m, latent = x.shape
    total = 0.0
    for i, j in itertools.product(range(latent), repeat=2):
        width = 0.0 if i == j else math.hypot(std[i], std[j])
        first, second = (absolute_moment(float(mean[i] - mean[j]), width, a) for a in (p, 2 * p))
        g = [abs(float(v[i] - v[j])) ** p for v in x]
        pairs = [a * b - (a + b) * first + second for a, b in itertools.permutations(g, 2)]
        total += float(weights[i, j]) * sum(pairs) / (m * (m - 1))
    return total


@given(weighted_problems(), exponents)
def test_matches_a_loop(problem, p):
    x, y, weights = problem
    want, plain = torch.empty(y.shape[:-1]), torch.empty(y.shape[:-1])
    zero, ones = torch.zeros(y.shape[-1]), torch.ones_like(weights)
    for index in itertools.product(*map(range, want.shape)):
        here = x[(slice(None), *index)]
        want[index] = by_loop(here, y[index], zero, weights, p)
        plain[index] = by_loop(here, y[index], zero, ones, p)
    torch.testing.assert_close(variogram_score(x, y, p=p, weights=weights), want)
    torch.testing.assert_close(variogram_score(x, y, p=p), plain)
    rule = VariogramScore(p).score(x, DiagonalGaussian.point_mass(y))
    torch.testing.assert_close(rule, plain)


@given(weighted_problems(), exponents, st.floats(-2, 2))
def test_expectation_over_the_target_matches_a_loop(problem, p, power):
    """At the accuracy of the moments, relative to the size of |v_i - v_j|^2p."""
    x, mean, weights = problem
    x, mean = x.reshape(len(x), -1, x.shape[-1])[:, 0], mean.reshape(-1, x.shape[-1])[0]
    std = 10**power * weights[0]
    std[0] = 0.0
    want = by_loop(x, mean, std, torch.ones_like(weights), p)
    size = float((x.abs().max() + std.max()) ** (2 * p))
    got = VariogramScore(p).score(x, DiagonalGaussian(mean, std))
    torch.testing.assert_close(got, torch.tensor(want), rtol=3e-6, atol=3e-6 * size)


@every_exponent
def test_expectation_over_the_target_is_an_integral(p):
    """Of two dimensions the score sees the difference of the outcome, which is Gaussian."""
    x = torch.tensor([[-1.0, 0.5], [0.4, 0.0], [2.0, -0.3]])
    target = DiagonalGaussian(torch.tensor([0.5, 0.2]), torch.tensor([0.3, 0.4]))

    def integrand(difference):
        score = variogram_score(x, torch.tensor([difference, 0.0]), p=p)
        return float(score) * math.exp(-(((difference - 0.3) / 0.5) ** 2) / 2)

    parts = [integrate.quad(integrand, a, b, epsabs=1e-8)[0] for a, b in [(-4.5, 0), (0, 5.0)]]
    want = torch.tensor(sum(parts) / (0.5 * math.sqrt(2 * math.pi)))
    torch.testing.assert_close(VariogramScore(p).score(x, target), want, rtol=1e-6, atol=1e-6)


@given(weighted_problems(), exponents)
def test_matches_scoringrules(problem, p):
    """Whose estimate is too large by the variance of each mean over samples."""
    x, y, weights = problem
    x, y = x.reshape(len(x), -1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    biased = scoringrules.vs_ensemble(
        y.numpy(),
        x.transpose(0, 1).numpy(),
        weights.expand(len(y), -1, -1).numpy(),
        p=p,
        backend="numpy",
    )
    power = (x[..., None] - x[..., None, :]).abs() ** p
    excess = (weights * power.var(dim=0)).sum(dim=(-2, -1)) / len(x)
    want = torch.as_tensor(biased) - excess
    torch.testing.assert_close(variogram_score(x, y, p=p, weights=weights), want)


@given(weighted_problems(), exponents, st.floats(0.1, 10.0))
def test_translation_homogeneity_and_permutation(problem, p, factor):
    x, y, weights = problem
    base = variogram_score(x, y, p=p, weights=weights)
    moved = variogram_score(x + 3, y - 5, p=p, weights=weights)
    torch.testing.assert_close(moved, base)
    scaled = variogram_score(factor * x, -factor * y, p=p, weights=weights)
    torch.testing.assert_close(scaled, factor ** (2 * p) * base)
    turned = variogram_score(x.flip(0, -1), y.flip(-1), p=p, weights=weights.flip(0, 1))
    torch.testing.assert_close(turned, base)


@pytest.mark.parametrize("draws", [2, 3])
@given(seeds, exponents)
def test_expectation_is_the_population_score(draws, seed, exponent):
    support, p, q = finite_problem(seed, latent=3)
    power = (support[..., None] - support[..., None, :]).abs() ** exponent
    predicted = torch.einsum("s,sij->ij", q, power)
    want = p @ (power - predicted).square().sum(dim=(-2, -1))
    got = expectation(partial(variogram_score, p=exponent), p, q, support, draws=draws)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@given(seeds, exponents)
def test_proper(seed, exponent):
    support, p, q = finite_problem(seed, latent=3)
    score = partial(variogram_score, p=exponent)
    assert expectation(score, p, q, support) > expectation(score, p, p, support) - 1e-12
    assert VariogramScore(exponent).proper


@given(seeds, exponents)
def test_blind_to_shift_and_sign(seed, exponent):
    """Two other distributions that score as well as the truth: not strictly proper."""
    support, p, _ = finite_problem(seed, latent=3)
    score = partial(variogram_score, p=exponent)
    truth = expectation(score, p, p, support)
    for rival in (support + 1, -support):
        got = expectation(score, p, p, support, rival=rival)
        torch.testing.assert_close(got, truth, rtol=1e-12, atol=1e-12)
    assert not VariogramScore(exponent).strictly_proper


def test_sees_dependence():
    """Equal and independent signs have the same margins, but other differences."""
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    independent, equal = torch.full((4,), 0.25), torch.tensor([0.5, 0.0, 0.0, 0.5])
    truth = expectation(variogram_score, equal, equal, signs)
    torch.testing.assert_close(truth, torch.tensor(0.0), rtol=0, atol=1e-12)
    # 2 (E|X_1 - X_2|^(1/2))^2 = 2 (sqrt(2) / 2)^2
    rival = expectation(variogram_score, equal, independent, signs)
    torch.testing.assert_close(rival, torch.tensor(1.0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("p", [0.0, -0.5, 1.01, math.nan])
def test_bad_exponent(p):
    with pytest.raises(ValueError, match=r"p must be in \(0, 1\]"):
        variogram_score(torch.zeros(2, 3), torch.zeros(3), p=p)
    with pytest.raises(ValueError, match=r"p must be in \(0, 1\]"):
        VariogramScore(p)


def test_bad_input():
    x, y = torch.zeros(2, 3), torch.zeros(3)
    for score in (
        lambda: variogram_score(x[:, :1], y[:1]),
        lambda: VariogramScore().score(x[:, :1], DiagonalGaussian.point_mass(y[:1])),
    ):
        with pytest.raises(ValueError, match="samples must have at least 2 dimensions"):
            score()
    with pytest.raises(ValueError, match=r"weights must not be negative.*got -1\.0"):
        variogram_score(x, y, weights=torch.eye(3) - 1)
    with pytest.raises(ValueError, match="weights must be finite"):
        variogram_score(x, y, weights=torch.eye(3) / 0)


@every_exponent
def test_gradients_with_weights(p):
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(*shape, generator=g).requires_grad_() for shape in ((4, 2, 3), (2, 3)))
    weights = torch.rand(3, 3, generator=g)
    assert torch.autograd.gradcheck(
        lambda x, y: variogram_score(x, y, p=p, weights=weights), (x, y)
    )
