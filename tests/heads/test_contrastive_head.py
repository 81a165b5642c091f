"""Contrastive head: hinge of energies, the law exp(-E / T), what its loss can and cannot tell."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeding import randomized, seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.contrastive import ContrastiveHead


def problem(batch=(4,), latent=3, seed=1):
    g = seeded(seed)
    cond, mean = torch.randn(*batch, 5, generator=g), torch.randn(*batch, latent, generator=g)
    return cond, DiagonalGaussian(mean, 0.2 + torch.zeros_like(mean))


@given(st.integers(0, 2**31 - 1), st.integers(1, 3), st.floats(0.01, 10))
def test_loss_matches_its_formula(seed, latent, margin):
    head = randomized(ContrastiveHead(5, latent, margin=margin))
    g = seeded(seed)
    cond, pairs = torch.randn(4, 5, generator=g), torch.randn(2, 6, 4, latent, generator=g)
    got = head.loss_from(cond, *pairs)
    for i in range(4):
        center = head.center.weight @ cond[i] + head.center.bias
        total = 0.0
        for positive, negative in zip(pairs[0, :, i], pairs[1, :, i], strict=True):
            energies = [0.5 * float((z - center) @ (z - center)) for z in (positive, negative)]
            total += max(0.0, margin + energies[0] - energies[1])
        assert float(got[i]) == pytest.approx(total / 6)


def test_loss_compares_draws_of_the_target_with_their_neighbours():
    head = randomized(ContrastiveHead(5, 3, distance=2.0, margin=1.5, negatives=6))
    cond, target = problem()
    g = seeded(3)
    positives = target.sample(6, g)
    negatives = positives + 2.0 / 3**0.5 * torch.randn(6, 4, 3, generator=g)
    want = head.loss_from(cond, positives, negatives)
    torch.testing.assert_close(head.loss(cond, target, seeded(3)), want)


@pytest.mark.parametrize("latent", [1, 50])
def test_distance_is_the_root_mean_square_whatever_the_dimension(latent):
    head = ContrastiveHead(5, latent, distance=3.0, negatives=20)
    seen = []
    head.loss_from = lambda cond, *pairs: seen.append(pairs) or cond[:, 0]
    head.loss(*problem((1000,), latent), seeded())
    positives, negatives = seen[0]
    squares = (negatives - positives).square().sum(-1).flatten()
    # Mean 9 and standard deviation 9 sqrt(2 / latent) of each; 4.9 standard errors.
    error = 9 * math.sqrt(2 / latent / len(squares))
    assert (squares.mean() - 9).abs() < 4.9 * error


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_density_is_the_normalised_exponential_of_the_energy(temperature):
    head = randomized(ContrastiveHead(5, 2, temperature=temperature))
    cond, _ = problem((1,), 2)
    axis = torch.linspace(-10, 10, 300)
    grid = torch.cartesian_prod(axis, axis)
    cond = cond.expand(len(grid), 5)
    log_prob = head.log_prob(cond, grid)
    unnormalised = (-head.energy(cond, grid) / temperature).exp()
    cell = (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(log_prob.exp(), unnormalised / (unnormalised.sum() * cell))


def test_samples_have_the_temperature_as_variance_exactly():
    """By enumeration of sign vectors, whose covariance is the identity."""
    head = randomized(ContrastiveHead(5, 3, temperature=0.5))
    cond = problem((), 3)[0]
    noise = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    for variance, of in ((0.5, head), (2.0, head.with_sampling(temperature=2.0))):
        samples = of.sample_from(cond, noise)
        torch.testing.assert_close(samples.mean(0), head.center(cond))
        torch.testing.assert_close(samples.T.cov(correction=0), variance * torch.eye(3))


def test_samples_are_the_centre_and_scaled_noise():
    head = randomized(ContrastiveHead(5, 3, temperature=0.5))
    cond, _ = problem()
    center = head.center(cond)
    noise = torch.randn(6, 4, 3, generator=seeded())
    torch.testing.assert_close(head.sample(cond, 6, seeded()), center + 0.5**0.5 * noise)


# Integrals over a standard normal number, by the trapezoid rule.
NODES = torch.linspace(-9, 9, 20001)
WEIGHTS = (-0.5 * NODES.square()).exp() / (-0.5 * NODES.square()).exp().sum()


def expected_loss(center, positive, negatives):
    """Of a latent of one dimension; pairs stand where positions do, one for each node."""
    head = ContrastiveHead(1, 1).requires_grad_(False)
    head.center.bias.fill_(center)
    positives = positive.expand_as(negatives)
    cond = torch.zeros(len(negatives), 1)
    losses = head.loss_from(cond, positives[None, :, None], negatives[None, :, None])
    return float(WEIGHTS @ losses)


def test_neighbours_of_the_truth_make_the_centre_the_minimum():
    truth = torch.tensor(1.0)
    errors = [0.0, 0.1, 0.3, 1.0, 3.0]
    right = [expected_loss(1.0 + a, truth, truth + NODES) for a in errors]
    left = [expected_loss(1.0 - a, truth, truth + NODES) for a in errors]
    assert left == pytest.approx(right)  # a function of |a|
    slopes = [
        (y - x) / (b - a) for (a, x), (b, y) in itertools.pairwise(zip(errors, right, strict=True))
    ]
    assert slopes[0] > 0 and slopes == sorted(slopes)  # convex, and never flat


def test_draws_of_the_marginal_would_push_the_centre_past_the_truth():
    truth = torch.tensor(1.0)
    at_truth, past = (expected_loss(c, truth, NODES) for c in (1.0, 1.43))
    assert past < at_truth - 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 0.0}, "margin must be positive and finite; got 0.0"),
        ({"distance": -1.0}, "distance must be positive and finite; got -1.0"),
        ({"distance": math.inf}, "distance must be positive and finite; got inf"),
        ({"negatives": 0}, "negatives must be at least 1; got 0"),
        ({"temperature": 0.0}, "temperature must be positive and finite; got 0.0"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveHead(5, 3, **arguments)
