"""E||v||^alpha of a Gaussian: against closed forms, other integrals and finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import expected_distance, gaussian_norm_moment

ALPHAS = [0.01, 0.3, 0.5, 1.0, 1.5, 1.9, 1.99]
# The accuracy that the module states.
STATED = {"rtol": 3e-6, "atol": 0.0}

alphas = pytest.mark.parametrize("alpha", ALPHAS)


def by_quadrature(mean, std, alpha):
    """The integral of the module's docstring over u = log t, adaptively and without tails."""
    terms = [(float(m) ** 2, float(s) ** 2) for m, s in zip(mean, std, strict=True)]
    scale = sum(m2 + s2 for m2, s2 in terms)

    def integrand(u):
        t = math.exp(u) / scale
        log_phi = sum(
            -0.5 * math.log1p(2 * t * s2) - t * m2 / (1 + 2 * t * s2) for m2, s2 in terms
        )
        return -math.expm1(log_phi) * math.exp(-alpha / 2 * u)

    # Beyond these ends 1 - phi is t * scale and 1, to double precision.
    low, high = -38.0, 90.0
    middle, _ = integrate.quad(integrand, low, high, limit=500, epsabs=0, epsrel=1e-8)
    tails = math.exp(low * (1 - alpha / 2)) / (1 - alpha / 2)
    tails += math.exp(-alpha / 2 * high) / (alpha / 2)
    c = (alpha / 2) / math.gamma(1 - alpha / 2)
    return torch.tensor(c * scale ** (alpha / 2) * (middle + tails))


@alphas
@pytest.mark.parametrize("latent", [1, 2, 3, 8, 128, 1000])
def test_chi_distribution(alpha, latent):
    want = 2 ** (alpha / 2) * math.exp(math.lgamma((latent + alpha) / 2) - math.lgamma(latent / 2))
    got = gaussian_norm_moment(torch.zeros(latent), torch.ones(latent), alpha=alpha)
    torch.testing.assert_close(got, torch.tensor(want), **STATED)


@alphas
@pytest.mark.parametrize("mean", [0.0, 1e-3, 1.0, 3.0, 30.0, 1e4])
def test_folded_normal(alpha, mean):
    """One dimension, where phi decays slowest; E|v|^a by Kummer's function."""
    want = 2 ** (alpha / 2) * math.gamma((1 + alpha) / 2) / math.sqrt(math.pi)
    want *= float(special.hyp1f1(-alpha / 2, 0.5, -(mean**2) / 2))
    got = gaussian_norm_moment(torch.tensor([mean]), torch.ones(1), alpha=alpha)
    torch.testing.assert_close(got, torch.tensor(want), **STATED)


@alphas
@pytest.mark.parametrize("ratio", [0.5, 0.1, 1e-2, 1e-3, 1e-4])
def test_two_dimensions_of_different_spread(alpha, ratio):
    """In polar coordinates the radius integrates to a gamma function, the angle is periodic."""
    angle = torch.arange(200_000) * (2 * math.pi / 200_000) + 1e-6
    along = (angle.cos().square() + (ratio * angle.sin()).square()) ** (alpha / 2)
    want = along.mean() * 2 ** (alpha / 2) * math.gamma(1 + alpha / 2)
    got = gaussian_norm_moment(torch.zeros(2), torch.tensor([1.0, ratio]), alpha=alpha)
    torch.testing.assert_close(got, want, **STATED)


@given(
    st.lists(
        st.tuples(st.floats(-6, 6), st.floats(-6, 6), st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=5,
    ),
    st.floats(0.05, 1.95),
)
def test_against_adaptive_quadrature(dimensions, alpha):
    """Means and standard deviations over twelve orders of magnitude, some of them zero."""
    mean = torch.tensor([10.0**m for m, _, _ in dimensions])
    std = torch.tensor([10.0**s * on for _, s, on in dimensions])
    got = gaussian_norm_moment(mean, std, alpha=alpha)
    torch.testing.assert_close(got, by_quadrature(mean, std, alpha), **STATED)


@given(
    st.lists(st.floats(-1.5, 1.5), min_size=2, max_size=6),
    st.floats(-3, 3),
    st.sampled_from(ALPHAS),
    st.integers(0, 1000),
)
def test_samples_at_unequal_distances(powers, std_power, alpha, seed):
    """Distances within a factor of 1000 share their nodes without harm."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(powers), 3, generator=generator)
    x = x / x.norm(dim=-1, keepdim=True) * 10 ** torch.tensor(powers)[:, None]
    std = 10**std_power * torch.rand(3, generator=generator)
    got = expected_distance(x, DiagonalGaussian(torch.zeros(3), std), alpha=alpha)
    want = torch.stack([by_quadrature(sample, std, alpha) for sample in x])
    torch.testing.assert_close(got, want, **STATED)


@given(st.floats(-100, 100), st.floats(0.05, 1.95), st.integers(0, 1000))
def test_point_mass_is_a_plain_distance(shift, alpha, seed):
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed))
    x[0, 0] = shift
    x[1] *= 1e6
    location = torch.full((5, 3), shift)
    want = (x - shift).norm(dim=-1) ** alpha
    got = expected_distance(x, DiagonalGaussian.point_mass(location), alpha=alpha)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("std", [1e-9, 0.1])
def test_a_tie_leaves_the_other_samples_alone(std):
    """One sample on the target's mean must not spoil the nodes of the others."""
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0], [2.0]])
    target = DiagonalGaussian(torch.zeros(1), torch.full((1,), std))
    got = expected_distance(x, target)[3:]
    want = torch.stack([by_quadrature(v, target.std, 1.0) for v in x[3:]])
    torch.testing.assert_close(got, want, **STATED)


@given(st.floats(0.05, 1.95), st.floats(0.01, 100), st.integers(0, 1000))
def test_homogeneous_of_degree_alpha_and_blind_to_signs(alpha, factor, seed):
    mean, std = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(seed))
    base = gaussian_norm_moment(mean, std.abs(), alpha=alpha)
    scaled = gaussian_norm_moment(-factor * mean, factor * std.abs(), alpha=alpha)
    torch.testing.assert_close(scaled, factor**alpha * base, rtol=1e-9, atol=0.0)


@alphas
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_gradients_agree_with_finite_differences(alpha, scale):
    generator = torch.Generator().manual_seed(0)
    x = (scale * torch.randn(3, 2, 4, generator=generator)).requires_grad_()
    mean = (scale * torch.randn(2, 4, generator=generator)).requires_grad_()
    std = (scale * torch.rand(2, 4, generator=generator)).requires_grad_()

    def of(x, mean, std):
        value = expected_distance(x, DiagonalGaussian(mean, std), alpha=alpha)
        return value / scale ** (alpha - 1)

    # The nodes move with the scale, so that quadrature error enters the differences.
    torch.autograd.gradcheck(of, (x, mean, std), eps=1e-4 * scale, atol=1e-5, rtol=1e-5)


@alphas
def test_gradient_of_a_point_mass(alpha):
    """Towards the target with slope alpha r^(alpha - 1); zero at a tie."""
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    expected_distance(x, DiagonalGaussian.point_mass(torch.zeros(2)), alpha=alpha).sum().backward()
    slope = alpha * 5 ** (alpha - 1)
    want = torch.tensor([[0.6 * slope, 0.8 * slope], [0.0, 0.0]])
    torch.testing.assert_close(x.grad, want)


@alphas
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", [0.0, 1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e9])
@pytest.mark.parametrize("std", [0.0, 1e-12, 1.0, 1e6])
def test_finite_at_ugly_points(alpha, dtype, magnitude, std):
    mean = torch.full((4,), magnitude, dtype=dtype, requires_grad=True)
    spread = torch.full((4,), std, dtype=dtype, requires_grad=True)
    value = gaussian_norm_moment(mean, spread, alpha=alpha)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(mean.grad).all() and torch.isfinite(spread.grad).all()


def test_single_precision_is_close():
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 64, 128, generator=generator)
    single = gaussian_norm_moment(mean.float(), std.abs().float())
    want = gaussian_norm_moment(mean, std.abs())
    torch.testing.assert_close(single.double(), want, rtol=5e-5, atol=0.0)


@pytest.mark.parametrize("alpha", [0.0, 2.0, -1.0, math.nan])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\)"):
        gaussian_norm_moment(torch.zeros(2), torch.ones(2), alpha=alpha)


def test_mismatched_shapes_are_named():
    target = DiagonalGaussian(torch.zeros(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"\(samples, 1, 3\); got \(4, 2, 3\)"):
        expected_distance(torch.zeros(4, 2, 3), target)
