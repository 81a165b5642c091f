"""A small head under each scoring rule: the strictly proper ones reach the distribution."""

import pytest
import torch
from short_training import Target, energy_distance, train

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead
from calmkit.scoring import (
    DawidSebastianiScore,
    EnergyScore,
    GaussianKernel,
    InverseMultiquadricKernel,
    KernelScore,
    LaplaceKernel,
    MarginalCRPS,
    SampledTarget,
    SlicedCRPS,
    SpreadWeighted,
    VariogramScore,
    WeightedSum,
)

STRICTLY_PROPER = [
    EnergyScore(),
    EnergyScore(0.5),
    EnergyScore(1.5),
    KernelScore(GaussianKernel([0.5, 1.0, 2.0])),
    KernelScore(LaplaceKernel(1.0)),
    KernelScore(InverseMultiquadricKernel(1.0)),
    SlicedCRPS(4),
    SampledTarget(EnergyScore(), 2),
    WeightedSum([EnergyScore(), VariogramScore()], [1.0, 0.1]),
]


def correlated(count, generator):
    """A Gaussian with standard deviations 1 and correlation 0.9, off the origin."""
    a, b = torch.randn(2, count, generator=generator)
    return torch.stack([a + 1, 0.9 * a + (1 - 0.81) ** 0.5 * b - 0.5], dim=-1).float()


def two_modes(count, generator):
    """Equal parts of two narrow Gaussians three apart."""
    side = torch.randint(2, (count, 1), generator=generator) * 3.0 - 1.5
    noise = 0.3 * torch.randn(count, 2, generator=generator)
    return (noise + side * torch.tensor([0.8, 0.6])).float()


def unconditional(count, generator):
    return torch.zeros(count, 1, dtype=torch.float32)


def trained(rule, law, *, quickly=False):
    """Draws of a head trained on plain observations, and fresh draws of the law.

    Quickly is in fewer, larger steps, which a rule with a flat minimum would not settle in.
    """

    def build(cond, latent):
        return EnergyHead(1, 2, width=32, depth=2, noise_size=8, rule=rule)

    def outcome(cond, generator):
        return DiagonalGaussian.point_mass(law(len(cond), generator))

    # One mode is learned sooner than two.
    steps = 150 if law is correlated else 250
    steps, lr = (3 * steps // 5, 1e-2) if quickly else (steps, 5e-3)
    head = train(build, Target(unconditional, outcome, (1, 1000)), steps=steps, lr=lr)
    generator = torch.Generator().manual_seed(1)
    samples = head.sample(unconditional(1, generator), 1000, generator)
    return samples, law(1000, generator)[:, None]


@pytest.mark.parametrize("target", [correlated, two_modes])
@pytest.mark.parametrize("rule", STRICTLY_PROPER, ids=str)
def test_strictly_proper_rules_reach_the_distribution(rule, target):
    assert rule.strictly_proper
    # The nearer the exponent is to 2, where only means count, the flatter is the minimum.
    quickly = str(rule) != str(EnergyScore(1.5))
    # Measured: at most 0.006 and 0.02. One standard deviation of shift would be about 0.5.
    assert energy_distance(*trained(rule, target, quickly=quickly)) < 0.04


def test_marginal_scores_do_not_see_which_modes_go_together():
    x, y = trained(MarginalCRPS(), two_modes)
    for dimension in ([0], [1]):
        assert energy_distance(x[..., dimension], y[..., dimension]) < 0.04
    assert energy_distance(x, y) > 0.3  # measured 0.70: it learned the wrong diagonal


def test_variogram_score_does_not_see_a_shift():
    x, y = trained(VariogramScore(), correlated)
    # E|X_1 - X_2|^p is right, where both dimensions lie is not.
    gap = [(z[..., 0] - z[..., 1]).abs().sqrt().mean() for z in (x, y)]
    assert abs(gap[0] - gap[1]) < 0.1
    assert energy_distance(x, y) > 0.1  # measured 0.15


def test_dawid_sebastiani_score_does_not_see_modes():
    x, y = trained(DawidSebastianiScore(), two_modes)
    torch.testing.assert_close(x.mean(0), y.mean(0), rtol=0.0, atol=0.3)
    torch.testing.assert_close(x.std(0), y.std(0), rtol=0.3, atol=0.0)
    assert energy_distance(x, y) > 0.1


def test_half_the_spread_weight_gathers_in_the_middle():
    x, y = trained(SpreadWeighted(EnergyScore(), 0.5), correlated)
    assert (x.std(0) < 0.6 * y.std(0)).all()  # measured 0.38
    torch.testing.assert_close(x.mean(0), y.mean(0), rtol=0.0, atol=0.2)
