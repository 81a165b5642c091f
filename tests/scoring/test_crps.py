"""CRPS: loops, scoringrules, other integrals; unbiased, and strict in one dimension only."""

import itertools
import math

import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from score_problems import expectation, finite_problem, margins_mixed, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring.crps import MarginalCRPS, crps, expected_crps, folded_normal_mean


@given(problems())
def test_matches_a_loop(problem):
    x, y = problem
    m = len(x)
    want = torch.empty(y.shape)
    for index in itertools.product(*map(range, y.shape)):
        xs, outcome = [float(x[(i, *index)]) for i in range(m)], float(y[index])
        error = sum(abs(v - outcome) for v in xs) / m
        pairs = sum(abs(u - v) for u, v in itertools.combinations(xs, 2))
        want[index] = error - pairs / (m * (m - 1))
    torch.testing.assert_close(crps(x, y), want)


@given(problems())
def test_matches_scoringrules(problem):
    x, y = problem
    want = scoringrules.crps_ensemble(
        y.numpy(), x.movedim(0, -1).numpy(), estimator="fair", backend="numpy"
    )
    torch.testing.assert_close(crps(x, y), torch.as_tensor(want).reshape(y.shape))


@given(problems(), st.floats(-2.0, 0.0), st.floats(0.5, 2.0))
def test_thresholds_match_scoringrules(problem, low, high):
    x, y = problem
    rows = x.movedim(0, -1).numpy()
    want = scoringrules.twcrps_ensemble(
        y.numpy(), rows, a=low, b=high, estimator="fair", backend="numpy"
    )
    got = crps(x, y, between=(low, high))
    torch.testing.assert_close(got, torch.as_tensor(want).reshape(y.shape))


@given(problems())
def test_the_rule_is_the_sum_over_dimensions(problem):
    x, y = problem
    got = MarginalCRPS().score(x, DiagonalGaussian.point_mass(y))
    torch.testing.assert_close(got, crps(x, y).sum(dim=-1))


@given(problems(), st.floats(0.1, 10.0))
def test_translation_homogeneity_and_permutation(problem, factor):
    x, y = problem
    base = crps(x, y)
    torch.testing.assert_close(crps(x + 3, y + 3), base)
    torch.testing.assert_close(crps(-factor * x, -factor * y), factor * base)
    torch.testing.assert_close(crps(x.flip(0), y), base)


@pytest.mark.parametrize("draws", [2, 3])
@given(seeds)
def test_expectation_is_the_integral_over_distribution_functions(draws, seed):
    """int E (F - [y <= t])^2 dt of step functions, piece by piece."""
    support, p, q = finite_problem(seed, latent=2)
    want = []
    for points in support.T:
        order = points.argsort()
        predicted, true = q[order].cumsum(0)[:-1], p[order].cumsum(0)[:-1]
        want.append(((predicted**2 - 2 * predicted * true + true) * points[order].diff()).sum())
    got = expectation(crps, p, q, support, draws=draws)
    torch.testing.assert_close(got, torch.stack(want), rtol=1e-12, atol=1e-12)


@given(seeds)
def test_strictly_proper_in_one_dimension(seed):
    support, p, q = finite_problem(seed, latent=1)
    assert expectation(crps, p, q, support) > expectation(crps, p, p, support)


def test_blind_to_dependence():
    """Two dimensions that are equal, and two independent ones, have the same margins."""
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    independent, equal = torch.full((4,), 0.25), torch.tensor([0.5, 0.0, 0.0, 0.5])
    truth = expectation(crps, equal, equal, signs).sum()
    rival = expectation(crps, equal, independent, signs).sum()
    torch.testing.assert_close(rival, truth, rtol=1e-12, atol=1e-12)
    assert MarginalCRPS().proper and not MarginalCRPS().strictly_proper


@given(problems(), seeds)
def test_margins_are_all_it_sees(problem, seed):
    x, y = problem
    target = DiagonalGaussian(y, y.abs())
    mixed = margins_mixed(x, seed)
    torch.testing.assert_close(expected_crps(mixed, target), expected_crps(x, target))


@pytest.mark.parametrize("outcome", [-3.0, 0.2, 2.0])
def test_many_quantiles_have_the_score_of_their_gaussian(outcome):
    levels = (torch.arange(4000) + 0.5) / 4000
    x = (0.3 + 2 * torch.special.ndtri(levels))[:, None]
    want = scoringrules.crps_normal(outcome, 0.3, 2.0, backend="numpy")
    # Self-pairs left out, the spread of m quantiles is too large by 1/m of itself.
    torch.testing.assert_close(
        crps(x, torch.tensor([outcome])), torch.tensor([want]), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("std", [0.01, 0.7, 20.0])
def test_expectation_over_the_target(std):
    """Against the integral of the plain score over the outcome, kinks split."""
    x, mean = torch.tensor([[-1.0], [0.4], [0.5], [2.0]]), 0.3

    def integrand(z):
        return float(crps(x, torch.tensor([mean + std * z]))) * math.exp(-(z**2) / 2)

    kinks = sorted(z for z in ((x - mean) / std).flatten().tolist() if abs(z) < 9)
    ends = [-9.0, *kinks, 9.0]
    want = sum(
        integrate.quad(integrand, a, b, epsabs=1e-9)[0] for a, b in itertools.pairwise(ends)
    )
    target = DiagonalGaussian(torch.tensor([mean]), torch.tensor([std]))
    got = MarginalCRPS().score(x, target)
    torch.testing.assert_close(
        got, torch.tensor(want / math.sqrt(2 * math.pi)), rtol=1e-8, atol=0.0
    )


@given(st.floats(-40, 40), st.floats(-6, 6))
def test_folded_normal_against_an_integral(ratio, power):
    """E|std (ratio + z)|, both signs of ratio + z by themselves."""
    std = 10.0**power

    def integrand(z):
        return abs(ratio + z) * math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)

    kink = min(max(-ratio, -12.0), 12.0)
    want = sum(
        integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-12, limit=200)[0]
        for a, b in [(-12.0, kink), (kink, 12.0)]
        if a < b
    )
    got = folded_normal_mean(torch.tensor([std * ratio]), torch.tensor([std]))
    torch.testing.assert_close(got, torch.tensor([std * want]), rtol=1e-11, atol=0.0)
    single = folded_normal_mean(
        torch.tensor([std * ratio], dtype=torch.float32), torch.tensor([std], dtype=torch.float32)
    )
    torch.testing.assert_close(single.double(), got, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("mean", [0.0, -2.5, 1e-30, 1e8])
def test_folded_normal_of_a_point_mass(mean):
    mean = torch.tensor([mean], requires_grad=True)
    std = torch.zeros(1, requires_grad=True)
    value = folded_normal_mean(mean, std)
    value.backward()
    assert torch.equal(value, mean.abs())
    assert torch.equal(mean.grad, mean.sign()) and torch.equal(std.grad, torch.zeros(1))


@given(st.floats(-12, 12), st.floats(-6, 6))
def test_folded_normal_gradient(ratio, power):
    """By mean erf(r / sqrt 2), by std sqrt(2/pi) exp(-r^2 / 2): the density's own derivative."""
    mean = torch.tensor([ratio * 10**power], requires_grad=True)
    std = torch.tensor([10**power], requires_grad=True)
    folded_normal_mean(mean, std).backward()
    by_std = math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2)
    torch.testing.assert_close(mean.grad, torch.tensor([math.erf(ratio / math.sqrt(2))]))
    torch.testing.assert_close(std.grad, torch.tensor([by_std]), rtol=1e-7, atol=1e-14)


def test_ties_score_zero():
    x = torch.full((5, 2), 1e6 / 3, dtype=torch.float32)
    assert torch.equal(crps(x, x[0]), torch.zeros(2, dtype=torch.float32))


def test_a_negative_spread_is_refused():
    with pytest.raises(ValueError, match="std must not be negative"):
        folded_normal_mean(torch.zeros(3), torch.full((3,), -1.0))
