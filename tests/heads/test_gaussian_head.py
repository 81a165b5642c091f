"""Gaussian head: closed-form loss, its start, its floor, and what it learns and cannot."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from seeding import randomized, seeded

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.gaussian import GaussianHead, gaussian_cross_entropy, positive_std
from calmkit.scoring import energy_score


def problem(batch=(4,), latent=3, seed=1):
    g = seeded(seed)
    cond, mean = torch.randn(*batch, 5, generator=g), torch.randn(*batch, latent, generator=g)
    return cond, DiagonalGaussian(mean, torch.rand(mean.shape, generator=g))


@given(st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_cross_entropy_is_the_integral(seed, latent):
    """By Gauss-Hermite nodes in each dimension: exact for quadratic functions."""
    g = seeded(seed)
    mu, m = torch.randn(2, latent, generator=g)
    sigma, s = 0.1 + torch.rand(2, latent, generator=g)
    want = 0.0
    for i in range(latent):
        for sign in (-1, 1):  # the two nodes, each of weight 1/2
            v = float(m[i] + sign * s[i])
            want -= 0.5 * scipy.stats.norm(float(mu[i]), float(sigma[i])).logpdf(v)
    assert float(gaussian_cross_entropy(mu, sigma, m, s)) == pytest.approx(want)


@pytest.mark.parametrize("std", [None, 0.7])
def test_loss_of_a_point_mass_is_the_negative_log_density(std):
    head = randomized(GaussianHead(5, 3, width=8, depth=2, std=std))
    cond, target = problem()
    loss = head.loss(cond, DiagonalGaussian.point_mass(target.mean))
    torch.testing.assert_close(loss, -head.log_prob(cond, target.mean))
    law = head.distribution(cond)
    for i in range(4):
        joint = scipy.stats.norm(law.mean[i].numpy(), law.std[i].numpy())
        want = -joint.logpdf(target.mean[i].numpy()).sum()
        assert float(loss[i]) == pytest.approx(want)


def test_fixed_std_is_the_squared_error():
    head = randomized(GaussianHead(5, 3, width=8, depth=2, std=0.5))
    cond, target = problem()
    error = (target.mean - head.distribution(cond).mean).square() + target.std.square()
    constant = 3 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    want = error.sum(-1) / (2 * 0.5**2) + constant
    torch.testing.assert_close(head.loss(cond, target), want)
    assert head.network.output.out_features == 3


def test_samples_are_mean_plus_scaled_noise():
    head = randomized(GaussianHead(5, 3, width=8, depth=2))
    cond, _ = problem()
    noise = torch.randn(6, 4, 3, generator=seeded())
    law = head.distribution(cond)
    want = law.mean + law.std * noise
    torch.testing.assert_close(head.sample_from(cond, noise), want)
    torch.testing.assert_close(head.sample(cond, 6, seeded()), want)


@pytest.mark.parametrize(("std", "spread"), [(None, 1.0), (0.3, 0.3)])
def test_starts_at_the_origin(std, spread):
    law = GaussianHead(5, 3, width=8, std=std).distribution(problem()[0])
    torch.testing.assert_close(law.mean, torch.zeros(4, 3), rtol=0, atol=0)
    torch.testing.assert_close(law.std, torch.full((4, 3), spread))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floor(dtype):
    raw = torch.tensor([-1e4, -50.0, 0.0, 1e4], dtype=dtype, requires_grad=True)
    std = positive_std(raw, 0.02)
    std.sum().backward()
    assert std[0] == torch.tensor(0.02, dtype=dtype) == std.min()
    assert torch.isfinite(std).all() and torch.isfinite(raw.grad).all()


def test_likelihood_of_predicted_points_is_bounded_by_the_floor():
    head = GaussianHead(5, 3, width=8, min_std=0.1).requires_grad_(False)
    head.network.output.bias[3:] = -1e3
    cond, _ = problem()
    best = 3 * (math.log(0.1) + 0.5 * math.log(2 * math.pi))
    loss = head.loss(cond, DiagonalGaussian.point_mass(torch.zeros(4, 3)))
    torch.testing.assert_close(loss, torch.full((4,), best))


def test_learns_mean_and_spread_of_each_condition():
    g = seeded()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = GaussianHead(2, 2, width=32, depth=2).float()

    def law(cond):
        """Mean and spread both depend on the condition, neither linearly."""
        mean = torch.stack([cond[:, 0] * cond[:, 1], cond[:, 0].sin()], dim=-1)
        return DiagonalGaussian(mean, 0.1 + 0.5 * cond.sigmoid())

    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        cond = torch.randn(128, 2, generator=g).float()
        optimizer.zero_grad()
        head.loss(cond, DiagonalGaussian.point_mass(law(cond).sample(1, g)[0])).mean().backward()
        optimizer.step()
        schedule.step()
    cond = torch.randn(500, 2, generator=g).float()
    want, got = law(cond), head.requires_grad_(False).distribution(cond)
    # In units of the true spread; measured 0.24 and 0.14.
    assert ((got.mean - want.mean) / want.std).square().mean().sqrt() < 0.4
    assert (got.std / want.std).log().square().mean().sqrt() < 0.25
    y = want.sample(1, g)[0]
    regret = energy_score(head.sample(cond, 20, g), y) - energy_score(want.sample(20, g), y)
    assert regret.mean() < 0.03  # measured 0.009


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"std": 0.0}, "std must be positive and finite, or None to learn it; got 0.0"),
        ({"std": math.inf}, "std must be positive and finite, or None to learn it; got inf"),
        ({"min_std": 0.0}, r"min_std must be in \(0, 1\), where latents have std 1; got 0.0"),
        ({"min_std": 1.0}, r"min_std must be in \(0, 1\), where latents have std 1; got 1.0"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianHead(5, 3, **arguments)
