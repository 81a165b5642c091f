"""Latent MSE and cosine: the formulas as loops, and heads whose errors are known."""

import itertools
import math

import pytest
import torch
from known_points import LATENT, groups, targets
from rounding import normal

from calmkit.diagnostics import latent_error
from calmkit.distributions import DiagonalGaussian


def mse(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.hypot(*a) / math.hypot(*b)


def test_is_its_formulas():
    points, draws = 12, 3
    samples, target = normal(draws, points, LATENT, seed=1), targets(points)
    found = latent_error(samples, target, groups(points))
    true = target.mean.tolist()
    mu = [sum(column) / points for column in zip(*true, strict=True)]
    for name, distance in (("mse", mse), ("cosine", cosine)):
        want = dict.fromkeys(("draws", "mean", "constant", "other"), 0.0)
        for t in range(points):
            x = samples[:, t].tolist()
            mean = [sum(column) / draws for column in zip(*x, strict=True)]
            want["draws"] += sum(distance(one, true[t]) for one in x) / draws / points
            want["mean"] += distance(mean, true[t]) / points
            want["constant"] += distance(mu, true[t]) / points
            want["other"] += distance(true[(t - points // 2) % points], true[t]) / points
        for guess, value in want.items():
            estimate = getattr(getattr(found, name), guess)
            assert estimate.value == pytest.approx(value, rel=1e-12), (name, guess)
            assert estimate.standard_error > 0
    assert found.gain.value == pytest.approx(found.mse.constant.value - found.mse.mean.value)
    assert found.explained == pytest.approx(found.gain.value / found.mse.constant.value)
    assert found.samples == draws


def test_calibrated_draws_have_twice_the_error_of_the_conditional_mean():
    """One draw and the outcome, each 0 or 3 by one law, enumerated; the mean is known."""
    law = [0.0, 0.0, 3.0]
    every = torch.tensor(list(itertools.product(law, repeat=2)))
    target = DiagonalGaussian.point_mass(every[:, 1:])
    of_draws = latent_error(every[None, :, :1], target, torch.arange(9))
    exact = latent_error(torch.full((1, 9, 1), 1.0), target, torch.arange(9))
    assert exact.mse.mean.value == pytest.approx(2.0)
    assert of_draws.mse.draws.value == pytest.approx(4.0)
    # The conditional mean of a law without a condition is the constant: nothing is gained.
    assert exact.gain.value == pytest.approx(0.0, abs=1e-12) and exact.is_bad


def test_a_head_that_knows_and_one_that_does_not():
    target = targets()
    offset = 0.1 * normal(1, 60, LATENT, seed=2)
    near = torch.cat((target.mean + offset, target.mean - offset))
    knows = latent_error(near, target, groups())
    assert knows.explained == pytest.approx(1.0) and not knows.is_bad
    assert knows.cosine.mean.value == pytest.approx(1.0)
    assert knows.mse.draws.value == pytest.approx(float(offset.square().mean()))
    far = latent_error(near.roll(1, dims=1), target, groups())
    assert far.gain.value < 0 and far.is_bad


def test_samples_of_another_precision_are_measured_in_float64():
    samples = normal(3, 60, LATENT, seed=3).bfloat16()
    low = latent_error(samples, targets(), groups())
    assert low == latent_error(samples.double(), targets(), groups())


def test_no_sample_is_refused():
    with pytest.raises(ValueError, match="at least 1 draw at each point; got 0"):
        latent_error(torch.zeros(0, 60, LATENT), targets(), groups())
