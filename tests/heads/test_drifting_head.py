"""Drifting head: its gradient is the drift, its arguments, and what the published drift learns."""

import pytest
import torch
from head_instances import LEARNING
from seeding import randomized, seeded
from short_training import TARGETS, train

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import DriftingHead, EnergyHead, MeanShiftDrift, UnbiasedDrift
from calmkit.scoring import GaussianKernel, LaplaceKernel

DRIFTS = [MeanShiftDrift(LaplaceKernel([0.5, 2.0])), UnbiasedDrift(GaussianKernel([0.5, 2.0]))]


def problem():
    cond, mean = torch.randn(7, 4, generator=seeded(1)), torch.randn(7, 3, generator=seeded(2))
    return cond, DiagonalGaussian(mean, torch.full_like(mean, 0.3))


@pytest.mark.parametrize("drift", DRIFTS, ids=str)
def test_loss_is_the_mean_square_of_the_drift_and_its_gradient_the_drift(drift):
    head = randomized(DriftingHead(4, 3, width=6, noise_size=5, num_samples=4, drift=drift))
    cond, target = problem()
    kept = []

    def keeping(cond, noise, map=head.sample_from):
        kept.append(map(cond, noise).requires_grad_())
        return kept[-1]

    head.sample_from = keeping
    loss = head.loss(cond, target, seeded(3))
    (gradient,) = torch.autograd.grad(loss.sum(), kept)
    generator = seeded(3)
    samples = EnergyHead.sample(head, cond, 4, generator)
    move = drift.field(samples, target, generator)
    for p in range(7):
        want = sum(move[n, p] @ move[n, p] for n in range(4)) / 4 / 3
        torch.testing.assert_close(loss[p], want)
    torch.testing.assert_close(gradient, -2 * move / 4 / 3)


def test_default_bandwidths_grow_with_the_size_of_latents():
    head = DriftingHead(4, 16, width=6)
    assert head.drift == UnbiasedDrift(LaplaceKernel([1.0, 2.0, 4.0]))


def test_from_one_outcome_each_the_published_drift_learns_the_mean():
    """The ring again: all samples gather in its middle. The default reaches it: test_learning."""

    def build(cond, latent):
        drift = MeanShiftDrift(LaplaceKernel([0.35, 0.7, 1.4]))
        return DriftingHead(cond, latent, **LEARNING, noise_size=8, drift=drift)

    head = train(build, TARGETS["ring"], steps=100, lr=1e-2)
    samples = head.sample(torch.zeros(2, dtype=torch.float32), 500, seeded())
    middle = torch.tensor([0.5, -0.5], dtype=torch.float32)
    assert (samples.mean(0) - middle).norm() < 0.4  # of a radius of 1.4
    assert samples.std(0).max() < 0.3  # the ring's is 1; measured 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 1}, "num_samples must be at least 2; got 1"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"noise_scale": -0.1}, r"noise_scale must be in \[0, inf\); got -0.1"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DriftingHead(4, 3, **arguments)
