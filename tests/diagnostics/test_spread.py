"""Spread of samples on heads whose answer is known."""

import itertools
import math

import pytest
import torch
from known_points import LATENT, targets
from rounding import normal

from calmkit.diagnostics import (
    sample_spread,
)
from calmkit.distributions import DiagonalGaussian


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
