"""Conditioning gap, skill and spread on heads whose answer is known."""

import itertools
import math

import pytest
import torch
from rounding import normal

from calmkit.diagnostics import (
    conditioning_gap,
    energy_skill,
    marginal_samples,
    mean_over_groups,
    sample_spread,
)
from calmkit.distributions import DiagonalGaussian

LATENT = 4


def targets(points=60, *, std=0.3):
    return DiagonalGaussian(normal(points, LATENT), torch.full((points, LATENT), std))


def groups(points=60):
    return torch.arange(points) % 6


def score(samples, outcome):
    """1/m sum ||x_i - y|| - 1/(m (m-1)) sum_{i<j} ||x_i - x_j||."""
    m = len(samples)
    error = sum(math.dist(x, outcome) for x in samples) / m
    pairs = sum(math.dist(a, b) for a, b in itertools.combinations(samples, 2))
    return error - pairs / (m * (m - 1))


def test_mean_over_groups_counts_points_and_resamples_groups():
    values, group = torch.tensor([1.0, 2.0, 6.0, 5.0]), torch.tensor([7, 7, 3, 3])
    found = mean_over_groups(values, group)
    assert found.value == 3.5
    # Two groups of equal size with means 1.5 and 5.5: draws give 1.5, 3.5 twice, 5.5.
    # From 1000 resamples it has an error of 2.2 %; measured 1.3 % above.
    assert found.standard_error == pytest.approx(math.sqrt(2), rel=0.1)
    uneven = mean_over_groups(values, torch.tensor([0, 1, 1, 1]))
    assert uneven.value == 3.5


class TestConditioning:
    def test_is_its_formula(self):
        samples, target = normal(3, 6, LATENT, seed=1), targets(6, std=0.0)
        found = conditioning_gap(samples, target, torch.arange(6))
        x, z = samples.tolist(), target.mean.tolist()
        drawn = [[x[j][t] for j in range(3)] for t in range(6)]
        matched = [score(drawn[t], z[t]) for t in range(6)]
        rolled = [score(drawn[t], z[(t + 1) % 6]) for t in range(6)]
        assert found.matched.value == pytest.approx(sum(matched) / 6)
        assert found.rolled.value == pytest.approx(sum(rolled) / 6)
        assert found.gap.value == pytest.approx(sum(rolled) / 6 - sum(matched) / 6)

    def test_a_head_that_draws_the_same_everywhere_has_none(self):
        """The roll is a permutation of the targets: the sums are the same."""
        samples = normal(8, 1, LATENT, seed=1).expand(8, 60, LATENT)
        found = conditioning_gap(samples, targets(), groups())
        assert found.gap.value == pytest.approx(0.0, abs=1e-12)
        assert found.is_bad

    def test_independent_draws_from_the_marginal_have_none_within_the_error(self):
        target, group = targets(600), torch.arange(600)
        samples = normal(8, 600, LATENT, seed=1)
        found = conditioning_gap(samples, target, group)
        # Measured 0.74 standard errors; 4.9 are exceeded by chance in one of 10^6 cases.
        assert abs(found.gap.value) < 4.9 * found.gap.standard_error
        # A head that leans towards its target by 0.3 is told apart: measured 14.7 standard errors.
        knows = conditioning_gap(samples + 0.3 * target.mean, target, group)
        assert knows.gap.value > 4.9 * knows.gap.standard_error

    def test_a_head_that_uses_its_condition_has_one(self):
        target = targets()
        samples = target.mean + 0.3 * normal(8, 60, LATENT, seed=1)
        found = conditioning_gap(samples, target, groups())
        assert not found.is_bad
        # Measured 1.93, between a score of 0.4 against the own target and 2.3 against another's.
        assert found.gap.value > 1.5


class TestSkill:
    def test_the_posterior_itself_reaches_the_floor(self):
        target, group = targets(400), torch.arange(400)
        marginal = marginal_samples(target, 4, torch.Generator().manual_seed(2))
        found = energy_skill(
            target.sample(16, torch.Generator().manual_seed(1)), marginal, target, group
        )
        error = found.model.standard_error
        # Measured 0.91 standard errors.
        assert abs(found.model.value - found.floor) < 4.9 * error
        # Samples half as wide again, or half as wide, do not: measured 22 and 77.
        for factor in (1.5, 0.5):
            wrong = target.mean + factor * (0.3 * normal(16, 400, LATENT, seed=1))
            other = energy_skill(wrong, marginal, target, group)
            assert other.model.value - other.floor > 4.9 * other.model.standard_error

    def test_floor_in_one_dimension(self):
        """1/2 E|Z - Z'| = s / sqrt(pi)."""
        std = torch.tensor([[0.5], [2.0], [0.0]])
        target = DiagonalGaussian(normal(3, 1), std)
        samples = normal(2, 3, 1, seed=1)
        found = energy_skill(samples, samples, target, torch.arange(3))
        assert found.floor == pytest.approx(2.5 / 3 / math.sqrt(math.pi), rel=1e-6)

    def test_is_its_formulas(self):
        samples, marginal = normal(3, 5, LATENT, seed=1), 2 * normal(4, 5, LATENT, seed=2)
        target = targets(5, std=0.0)
        found = energy_skill(samples, marginal, target, torch.arange(5))
        z = target.mean.tolist()
        model, ignorant = (
            sum(score(x[:, t].tolist(), z[t]) for t in range(5)) / 5 for x in (samples, marginal)
        )
        assert found.model.value == pytest.approx(model)
        assert found.marginal.value == pytest.approx(ignorant)
        assert found.gain.value == pytest.approx(ignorant - model)
        assert found.skill == pytest.approx(1 - model / ignorant)

    def test_the_marginal_against_itself_gains_nothing(self):
        target, group = targets(400), torch.arange(400)
        draws = [marginal_samples(target, 8, torch.Generator().manual_seed(s)) for s in (1, 2)]
        found = energy_skill(draws[0], draws[1], target, group)
        # Measured 1.05 standard errors.
        assert abs(found.gain.value) < 4.9 * found.gain.standard_error

    def test_marginal_samples_are_of_every_other_point_alike(self):
        points, count = 5, 4000
        target = DiagonalGaussian.point_mass(torch.arange(points)[:, None] * torch.ones(1, 2))
        drawn = marginal_samples(target, count, torch.Generator().manual_seed(0))
        assert drawn.shape == (count, points, 2)
        shares = torch.stack([(drawn[..., 0] == j).double().mean(dim=0) for j in range(points)])
        want = (1 - torch.eye(points)) / (points - 1)
        # Binomial; 25 comparisons at 5 standard errors.
        allowed = 5 * (want * (1 - want) / count).sqrt()
        assert bool(((shares - want).abs() <= allowed).all())

    def test_marginal_samples_have_the_posterior_noise(self):
        target = DiagonalGaussian(torch.zeros(3, 2), torch.tensor([[2.0, 0.0]] * 3))
        drawn = marginal_samples(target, 5000, torch.Generator().manual_seed(0))
        # 15000 draws: a standard error of 0.6 %.
        assert float(drawn[..., 0].std()) == pytest.approx(2.0, rel=0.03)
        assert float(drawn[..., 1].abs().max()) == 0.0

    @pytest.mark.parametrize("shape", [(1, 2), (2, 3, 2)])
    def test_refuses_targets_without_another_point(self, shape):
        with pytest.raises(ValueError, match="with at least 2 points"):
            marginal_samples(DiagonalGaussian(torch.zeros(shape), torch.ones(shape)), 2)


class TestSpread:
    def test_is_its_formulas(self):
        samples, target = normal(3, 5, LATENT, seed=1), targets(5, std=0.7)
        found = sample_spread(samples, target)
        head = error = 0.0
        for t in range(5):
            for i in range(LATENT):
                x = samples[:, t, i].tolist()
                mean = sum(x) / 3
                variance = sum((v - mean) ** 2 for v in x) / 2
                head += variance / 5
                error += ((mean - float(target.mean[t, i])) ** 2 + 0.7**2 - variance / 3) / 5
        marginal = float(target.mean.var(dim=0, correction=0).sum()) + LATENT * 0.7**2
        assert found.head == pytest.approx(math.sqrt(head))
        assert found.posterior == pytest.approx(0.7 * math.sqrt(LATENT))
        assert found.marginal == pytest.approx(math.sqrt(marginal))
        assert found.error == pytest.approx(math.sqrt(error))

    def test_calibrated_by_enumeration(self):
        """Two draws and the outcome, each 0 or 3 by one law: head and error agree exactly."""
        law = [0.0, 0.0, 3.0]
        every = torch.tensor(list(itertools.product(law, repeat=3)))
        target = DiagonalGaussian.point_mass(every[:, 2:])
        found = sample_spread(every[:, :2].T[..., None], target)
        # 2/3 * 1/3 * 3^2
        assert found.head**2 == pytest.approx(2.0) and found.error**2 == pytest.approx(2.0)
        assert found.marginal**2 == pytest.approx(2.0)
        # A head of twice the width is found.
        assert sample_spread(2 * every[:, :2].T[..., None] - 1, target).is_bad

    def test_a_collapsed_head_has_none(self):
        found = sample_spread(torch.zeros(4, 60, LATENT), targets())
        assert (found.head, found.ratio) == (0.0, 0.0) and found.is_bad

    def test_the_posterior_has_ratio_one(self):
        """Two samples m + s e and m - s e with e = 1/sqrt(2): their variance is s^2."""
        target = targets()
        offset = target.std / math.sqrt(2)
        found = sample_spread(torch.stack((target.mean + offset, target.mean - offset)), target)
        assert found.ratio == pytest.approx(1.0)

    def test_refuses_one_sample(self):
        with pytest.raises(ValueError, match="samples must hold at least 2 draws"):
            sample_spread(torch.zeros(1, 60, LATENT), targets())
