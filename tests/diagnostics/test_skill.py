"""Energy skill on heads whose answer is known."""

import math

import pytest
import torch
from known_points import LATENT, score, targets
from rounding import normal

from calmkit.diagnostics import (
    energy_skill,
    marginal_samples,
)
from calmkit.distributions import DiagonalGaussian


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
