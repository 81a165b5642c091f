"""Energy score: loops, scoringrules, unbiasedness and strict propriety by enumeration."""

import itertools
from functools import partial

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from score_problems import expectation, finite_problem, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import EnergyScore, energy_score

alphas = st.floats(0.05, 1.95)


def by_functions(samples, observation, alpha):
    return energy_score(samples, observation, alpha=alpha)


def by_rule(samples, observation, alpha):
    return EnergyScore(alpha)(samples, observation)


both_ways = pytest.mark.parametrize("score", [by_functions, by_rule])


@both_ways
@given(problems(), alphas)
def test_matches_a_loop(score, problem, alpha):
    x, y = problem
    m, batch = x.shape[0], y.shape[:-1]
    want = torch.empty(batch)
    for index in itertools.product(*map(range, batch)):
        xs, outcome = [x[(i, *index)] for i in range(m)], y[index]
        error = sum(float((v - outcome).norm()) ** alpha for v in xs) / m
        pairs = [float((u - v).norm()) ** alpha for u, v in itertools.combinations(xs, 2)]
        want[index] = error - sum(pairs) / (m * (m - 1))
    torch.testing.assert_close(score(x, y, alpha), want)


@both_ways
@given(problems())
def test_matches_scoringrules(score, problem):
    x, y = problem
    rows = x.flatten(1, -2) if y.ndim > 1 else x[:, None]
    want = scoringrules.es_ensemble(
        y.reshape(-1, y.shape[-1]).numpy(),
        rows.transpose(0, 1).numpy(),
        estimator="fair",
        backend="numpy",
    )
    torch.testing.assert_close(score(x, y, 1.0).reshape(-1), torch.from_numpy(np.asarray(want)))


@both_ways
@given(problems(), alphas, st.floats(0.1, 10.0))
def test_translation_and_homogeneity(score, problem, alpha, factor):
    x, y = problem
    base = score(x, y, alpha)
    torch.testing.assert_close(score(x + 3, y + 3, alpha), base)
    torch.testing.assert_close(score(factor * x, factor * y, alpha), factor**alpha * base)


@both_ways
@given(seeds, alphas)
def test_expectation_is_the_population_score(score, seed, alpha):
    support, p, q = finite_problem(seed)
    d = (support[:, None] - support[None]).norm(dim=-1).pow(alpha)
    want = p @ d @ q - 0.5 * q @ d @ q
    got = expectation(partial(score, alpha=alpha), p, q, support)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@both_ways
@given(seeds, alphas)
def test_strictly_proper(score, seed, alpha):
    support, p, q = finite_problem(seed)
    score = partial(score, alpha=alpha)
    assert expectation(score, p, q, support) > expectation(score, p, p, support)
    assert EnergyScore(alpha).strictly_proper


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5])
def test_rule_is_the_mean_over_posterior_draws(alpha):
    """The target term in closed form against 200 000 drawn targets; a wrong one is rejected."""
    g = torch.Generator().manual_seed(0)
    samples, mean = torch.randn(4, 3, generator=g), torch.randn(3, generator=g)
    std = 0.5 + torch.rand(3, generator=g)
    target = DiagonalGaussian(mean, std)
    outcomes = target.sample(200_000, g)
    drawn = energy_score(samples[:, None].expand(-1, 200_000, -1), outcomes, alpha=alpha)
    error = drawn.std() / len(drawn) ** 0.5

    def z(target):
        return (EnergyScore(alpha).score(samples, target) - drawn.mean()).abs() / error

    assert z(target) < 4.9  # 1e-6 two-sided
    assert z(DiagonalGaussian(mean, 1.05 * std)) > 4.9


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.5])
@both_ways
def test_ties_score_zero(score, alpha):
    x = torch.ones(3, 2, dtype=torch.float32)
    assert score(x, x[0], alpha) == 0


@both_ways
def test_whole_number_alpha(score):
    x, y = torch.randn(2, 3), torch.randn(3)
    assert torch.equal(score(x, y, 1), score(x, y, 1.0))


@pytest.mark.parametrize("alpha", [0.0, 2.0, -0.5])
def test_bad_alpha(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\)"):
        energy_score(torch.zeros(2, 3), torch.zeros(3), alpha=alpha)
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\)"):
        EnergyScore(alpha)
