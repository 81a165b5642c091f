"""The conditioning gap on heads whose answer is known, and means over groups."""

import math

import pytest
import torch
from known_points import LATENT, groups, score, targets
from rounding import normal

from calmkit.diagnostics import (
    conditioning_gap,
    mean_over_groups,
)


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
