"""Drifts: retyped formulas, gradients of potentials and of scores, equilibrium by enumeration."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from seeding import seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import MeanShiftDrift, UnbiasedDrift
from calmkit.scoring import (
    GaussianKernel,
    InverseMultiquadricKernel,
    Kernel,
    KernelScore,
    LaplaceKernel,
    energy_score,
)

SHARP = {
    GaussianKernel: lambda ratio: (-(ratio**2) / 2).exp(),
    LaplaceKernel: lambda ratio: (1 + ratio) * (-ratio).exp(),
}


def draws(count, *batch, latent=2, seed=1):
    return torch.randn(count, *batch, latent, generator=seeded(seed))


def literal_shift(x, others, kernel, sharp):
    """The mean shift of one point towards others, one bandwidth after the other."""
    total = torch.zeros_like(x)
    for b in kernel.all_bandwidths:
        pull, mass = torch.zeros_like(x), torch.zeros(())
        for y in others:
            r = (x - y).norm() / b
            k = (-kernel.exponent(r)).exp()
            pull = pull + k * (y - x)
            mass = mass + (SHARP[type(kernel)](r) if sharp else k)
        total = total + pull / mass
    return total


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize(
    "kernel", [LaplaceKernel([0.5, 2.0]), GaussianKernel([0.7, 3.0])], ids=str
)
def test_mean_shift_is_the_published_formula(kernel, sharp):
    samples, outcomes = draws(4, 3), draws(5, 3, seed=2)
    found = MeanShiftDrift(kernel, sharp=sharp).field_towards(samples, outcomes)
    for i in range(4):
        for p in range(3):
            x, others = samples[i, p], [samples[j, p] for j in range(4) if j != i]
            want = literal_shift(x, outcomes[:, p], kernel, sharp)
            want = want - literal_shift(x, others, kernel, sharp)
            torch.testing.assert_close(found[i, p], want)


@pytest.mark.parametrize("normalized", [False, True])
def test_unbiased_drift_is_its_formula(normalized):
    samples, outcomes = draws(4, 3), draws(5, 3, seed=2)
    kernel = LaplaceKernel([0.5, 2.0])

    def k(x, y):
        return kernel.value((x - y).norm())

    found = UnbiasedDrift(kernel, normalized).field_towards(samples, outcomes)
    for i, p in itertools.product(range(4), range(3)):
        x = samples[i, p]
        pull = sum(k(x, y) * (y - x) for y in outcomes[:, p]) / 5
        want = torch.zeros(2)
        for j in {0, 1, 2, 3} - {i}:
            rest = [samples[m, p] for m in range(4) if m not in (i, j)]
            mass = (k(x, x) + sum(k(x, y) for y in rest)) / 3 if normalized else k(x, x)
            y = samples[j, p]
            want = want + (pull - k(x, y) * (y - x)) / mass / 3
        torch.testing.assert_close(found[i, p], want)


@pytest.mark.parametrize("kernel", [LaplaceKernel([0.5, 2.0]), GaussianKernel(0.7)], ids=str)
def test_unbiased_drift_integrates_its_target(kernel):
    """The target's quantiles, as outcomes, give the same field."""
    samples = draws(4, 1, latent=1)
    target = DiagonalGaussian(torch.tensor([[0.4]]), torch.tensor([[0.3]]))
    quantiles = torch.special.ndtri((torch.arange(10_000) + 0.5) / 10_000)
    drift = UnbiasedDrift(kernel)
    want = drift.field_towards(samples, target.rsample_from(quantiles.view(-1, 1, 1)))
    torch.testing.assert_close(drift.field(samples, target), want, rtol=0.0, atol=1e-4)


def potential(x, points, kernel):
    """b^2 log of the mean of the sharp kernel."""
    (b,) = kernel.all_bandwidths
    return b**2 * SHARP[type(kernel)]((x - points).norm(dim=-1) / b).mean().log()


@pytest.mark.parametrize("kernel", [LaplaceKernel(0.8), GaussianKernel(0.8)], ids=str)
def test_sharp_mean_shift_is_the_gradient_of_a_potential(kernel):
    samples, outcomes = draws(4, latent=3), draws(5, latent=3, seed=2)
    found = MeanShiftDrift(kernel, sharp=True).field_towards(samples, outcomes)
    x = samples[0].clone().requires_grad_()
    difference = potential(x, outcomes, kernel) - potential(x, samples[1:], kernel)
    (want,) = torch.autograd.grad(difference, x)
    torch.testing.assert_close(found[0], want)


def asymmetry(drift):
    """The largest asymmetry of dV/dx of one sample; a gradient has none."""
    samples, outcomes = draws(4, latent=3), draws(5, latent=3, seed=2)

    def field(x):
        return drift.field_towards(torch.cat([x[None], samples[1:]]), outcomes)[0]

    jacobian = torch.autograd.functional.jacobian(field, samples[0])
    return (jacobian - jacobian.T).abs().max()


def test_without_the_sharp_kernel_only_the_gaussian_has_a_potential():
    assert asymmetry(MeanShiftDrift(LaplaceKernel(0.8))) > 1e-2
    for drift in (
        MeanShiftDrift(GaussianKernel(0.8)),
        MeanShiftDrift(LaplaceKernel(0.8), sharp=True),
        UnbiasedDrift(LaplaceKernel(0.8), normalized=False),
    ):
        assert asymmetry(drift) < 1e-12


@dataclass(frozen=True)
class Inverse(Kernel):
    """b / r, the kernel of the energy score with alpha = 1; 1 at r = 0, where it is not used."""

    def exponent(self, ratio):
        return torch.where(ratio > 0, ratio, 1.0).log()

    def mixture(self, like):
        raise NotImplementedError


def score_gradient(score, samples):
    x = samples.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x).sum(), x)
    return -len(samples) * gradient


def test_the_energy_score_is_a_drift_with_a_constant_normaliser():
    samples, outcome = draws(4, 3), draws(1, 3, seed=2)
    found = UnbiasedDrift(Inverse(), normalized=False).field_towards(samples, outcome)
    want = score_gradient(lambda x: energy_score(x, outcome[0]), samples)
    torch.testing.assert_close(found, want)
    other = score_gradient(lambda x: energy_score(x, outcome[0], alpha=1.5), samples)
    assert not torch.isclose(found, other).any()


def test_the_score_of_a_gaussian_kernel_is_one_too_also_for_a_gaussian_target():
    samples = draws(4, 3)
    target = DiagonalGaussian(draws(1, 3, seed=2)[0], draws(1, 3, seed=3)[0].abs())
    kernel = GaussianKernel(0.7)
    found = UnbiasedDrift(kernel, normalized=False).field(samples, target)
    want = score_gradient(lambda x: KernelScore(kernel).score(x, target), samples)
    torch.testing.assert_close(found, 0.7**2 * want)


# Five points in the plane, the law of the target and another one.
SUPPORT = draws(5, seed=4)
RIGHT = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15])
WRONG = torch.tensor([0.3, 0.1, 0.2, 0.25, 0.15])
EVERY_DRIFT = [
    MeanShiftDrift(LaplaceKernel([0.5, 2.0])),
    MeanShiftDrift(LaplaceKernel(0.5), sharp=True),
    UnbiasedDrift(LaplaceKernel([0.5, 2.0])),
    UnbiasedDrift(GaussianKernel(0.7), normalized=False),
]


def mean_field(drift, law, outcomes, samples=3):
    """E V(x) for each x of the support, over all other samples and all outcomes, by enumeration.

    Samples follow `law`, and the given number of outcomes of one draw RIGHT.
    """
    others = torch.cartesian_prod(*[torch.arange(5)] * (samples - 1 + outcomes))
    weights = law[others[:, : samples - 1]].prod(-1) * RIGHT[others[:, samples - 1 :]].prod(-1)
    rows = SUPPORT[others].transpose(0, 1)
    fields = []
    for x in SUPPORT:
        batch = torch.cat([x.expand(1, *rows.shape[1:]), rows[: samples - 1]])
        found = drift.field_towards(batch, rows[samples - 1 :])[0]
        fields.append(weights @ found)
    return torch.stack(fields)


@pytest.mark.parametrize("drift", EVERY_DRIFT, ids=str)
def test_at_equilibrium_no_sample_moves_in_the_mean(drift):
    outcomes = drift.noise_size(3) or 1
    assert mean_field(drift, RIGHT, outcomes).abs().max() < 1e-13
    assert mean_field(drift, WRONG, outcomes).abs().max() > 1e-2


@pytest.mark.parametrize("drift", EVERY_DRIFT, ids=str)
def test_only_a_drift_that_is_linear_in_its_target_can_learn_from_one_outcome(drift):
    away = mean_field(drift, RIGHT, 1).abs().max()
    if isinstance(drift, UnbiasedDrift):
        both, one = (mean_field(drift, WRONG, outcomes) for outcomes in (2, 1))
        torch.testing.assert_close(both, one)
        assert away < 1e-13
    else:
        assert away > 1e-2


def test_from_one_outcome_the_mean_shift_learns_the_mean():
    """Where all samples lie at the mean of the outcomes, none moves."""
    mean = RIGHT @ SUPPORT
    drift = MeanShiftDrift(LaplaceKernel([0.5, 2.0]))
    fields = drift.field_towards(mean.expand(3, 5, 2), SUPPORT[None])
    torch.testing.assert_close(RIGHT @ fields[0], torch.zeros(2), rtol=0.0, atol=1e-14)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"kernel must have a sharp companion.*InverseMulti"):
        MeanShiftDrift(InverseMultiquadricKernel(1.0), sharp=True)
    law = DiagonalGaussian.point_mass(torch.zeros(3, 2))
    for drift in EVERY_DRIFT:
        with pytest.raises(ValueError, match="num_samples must be at least 2; got 1"):
            drift.field(draws(1, 3), law)


def test_far_and_tied_samples_have_finite_drifts():
    law = DiagonalGaussian.point_mass(torch.full((3, 2), 1e6))
    for drift in EVERY_DRIFT:
        for samples in (torch.zeros(4, 3, 2), 1e4 * draws(4, 3)):
            assert drift.field(samples, law, seeded()).isfinite().all()
