"""E||v||^alpha of a Gaussian: against closed forms, other integrals and finite differences."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from calmkit.distributions import DiagonalGaussian
from calmkit.numerics import bernstein
from calmkit.scoring import expected_distance, gaussian_norm_moment, moments

ALPHAS = [0.01, 0.3, 0.5, 1.0, 1.5, 1.9, 1.99]
# The accuracies that the module states: of one vector, and of samples that share nodes.
STATED = {"rtol": 1e-7, "atol": 0.0}
SHARED = {"rtol": 1e-5, "atol": 0.0}

alphas = pytest.mark.parametrize("alpha", ALPHAS)


def integral(mean, std, alpha, integrand, low, high):
    """c A^(a/2) int integrand(t, phi(t)) t^(-a/2) du with t = e^u / A, adaptively."""
    terms = [(float(m) ** 2, float(s) ** 2) for m, s in zip(mean, std, strict=True)]
    scale = sum(m2 + s2 for m2, s2 in terms)

    def of(u):
        t = math.exp(u) / scale
        log_phi = sum(
            -0.5 * math.log1p(2 * t * s2) - t * m2 / (1 + 2 * t * s2) for m2, s2 in terms
        )
        return integrand(t, log_phi) * math.exp(-alpha / 2 * u)

    found, _ = integrate.quad(of, low, high, limit=1000, epsabs=0, epsrel=1e-9)
    return (alpha / 2) / math.gamma(1 - alpha / 2) * scale ** (alpha / 2) * found, scale


def by_quadrature(mean, std, alpha):
    """E||v||^alpha from the integral of the module's docstring."""
    # Beyond these ends 1 - phi is e^u and 1, to double precision.
    low, high = -38.0, 90.0
    middle, scale = integral(mean, std, alpha, lambda _, log: -math.expm1(log), low, high)
    tails = math.exp(low * (1 - alpha / 2)) / (1 - alpha / 2)
    tails += math.exp(-alpha / 2 * high) / (alpha / 2)
    c = (alpha / 2) / math.gamma(1 - alpha / 2)
    return torch.tensor(middle + c * scale ** (alpha / 2) * tails)


def derivatives_by_quadrature(mean, std, alpha):
    """By mean and std, differentiated under the integral."""
    by_mean, by_std = [], []
    low, high, b = -38.0, 120.0, alpha / 2
    for m, s in zip(mean.tolist(), std.tolist(), strict=True):

        def rate(t, s=s):
            return t / (1 + 2 * t * s * s)

        def of_mean(t, log, m=m, rate=rate):
            return math.exp(log) * 2 * m * rate(t)

        def of_std(t, log, m=m, s=s, rate=rate):
            return math.exp(log) * 2 * s * (rate(t) - 2 * (m * rate(t)) ** 2)

        # Below the low end, phi is 1 and the rate t.
        middle, scale = integral(mean, std, alpha, of_mean, low, high)
        tail = b / math.gamma(1 - b) * scale ** (b - 1) * math.exp((1 - b) * low) / (1 - b)
        by_mean.append(middle + 2 * m * tail)
        by_std.append(integral(mean, std, alpha, of_std, low, high)[0] + 2 * s * tail)
    return torch.tensor(by_mean), torch.tensor(by_std)


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
    st.sampled_from([1, 3]),
)
def test_samples_at_unequal_distances(powers, std_power, alpha, seed, latent):
    """Distances within a factor of 1000 share their nodes without harm."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(powers), latent, generator=generator)
    x = x / x.norm(dim=-1, keepdim=True) * 10 ** torch.tensor(powers)[:, None]
    std = 10**std_power * torch.rand(latent, generator=generator)
    got = expected_distance(x, DiagonalGaussian(torch.zeros(latent), std), alpha=alpha)
    want = torch.stack([by_quadrature(sample, std, alpha) for sample in x])
    torch.testing.assert_close(got, want, **SHARED)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 1.9])
@pytest.mark.parametrize("std", [0.01, 0.03, 0.1])
def test_the_nearest_of_unequal_samples_in_one_dimension(alpha, std):
    """Where phi decays slowest, nodes must go on to the end of the nearest, a 1000th as far."""
    x = torch.tensor([[0.03], [30.0]])
    got = expected_distance(x, DiagonalGaussian(torch.zeros(1), torch.tensor([std])), alpha=alpha)
    want = torch.stack([by_quadrature(sample, [std], alpha) for sample in x])
    torch.testing.assert_close(got, want, **SHARED)


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
    torch.testing.assert_close(got, want, **SHARED)


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


@pytest.mark.parametrize("s", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("m", [0.0, 0.5, 3.0])
def test_second_derivatives_of_the_folded_normal(m, s):
    """E|v| has 2 phi(m/s) / s by m twice, times -m/s by both, times (m/s)^2 by s twice."""
    m = m * s
    density = 2 * math.exp(-0.5 * (m / s) ** 2) / math.sqrt(2 * math.pi) / s
    want = torch.tensor([[density, -density * m / s], [-density * m / s, density * (m / s) ** 2]])
    tolerance = {"rtol": 1e-6, "atol": 1e-6 / s}

    def moment(v):
        return gaussian_norm_moment(v[:1], v[1:])

    v = torch.tensor([m, s], requires_grad=True)
    for hessian in (
        torch.func.jacrev(torch.func.grad(moment)),
        lambda v: torch.autograd.functional.hessian(moment, v),
    ):
        torch.testing.assert_close(hessian(v).detach(), want, **tolerance)

    def slope(m):
        return torch.func.grad(lambda m: gaussian_norm_moment(m[None], v[1:].detach()))(m)

    got = torch.func.grad(slope)(v[0].detach())
    torch.testing.assert_close(got, want[0, 0], **tolerance)
    third = torch.func.grad(torch.func.grad(slope))(v[0].detach())
    want = torch.tensor(-density * m / s**2)
    torch.testing.assert_close(third, want, rtol=1e-6, atol=1e-6 / s**2)


@alphas
def test_second_derivatives_agree_with_finite_differences(alpha):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, generator=generator).requires_grad_()
    mean = torch.randn(2, 4, generator=generator).requires_grad_()
    std = torch.rand(2, 4, generator=generator).requires_grad_()

    def of(x, mean, std):
        return expected_distance(x, DiagonalGaussian(mean, std), alpha=alpha)

    torch.autograd.gradgradcheck(of, (x, mean, std), eps=1e-4, atol=1e-5, rtol=1e-5)


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
def test_finite_at_ugly_points(alpha, dtype):
    magnitudes, stds = (0.0, 1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e9), (0.0, 1e-12, 1.0, 1e6)
    for magnitude, std in itertools.product(magnitudes, stds):
        mean = torch.full((4,), magnitude, dtype=dtype, requires_grad=True)
        spread = torch.full((4,), std, dtype=dtype, requires_grad=True)
        value = gaussian_norm_moment(mean, spread, alpha=alpha)
        value.backward()
        for found in (value, mean.grad, spread.grad):
            assert torch.isfinite(found).all(), (magnitude, std)


def scattered(seed, latent, decades):
    """Means and standard deviations over `decades` powers of ten, a third of each zero."""
    generator = torch.Generator().manual_seed(seed)
    powers, zero = torch.rand(2, 2, 40, latent, generator=generator)
    mean, std = 10 ** (decades * (powers - 0.5)) * (zero > 1 / 3)
    # A point mass is another branch.
    return mean, torch.where((std == 0).all(dim=-1, keepdim=True), 1.0, std)


@alphas
@pytest.mark.parametrize("latent", [1, 2, 5, 128])
@pytest.mark.parametrize("decades", [0.5, 6.0])
def test_single_precision(alpha, latent, decades):
    """Values and derivatives against float64, which the tests above hold to its bound."""
    results = []
    for dtype in (torch.float32, torch.float64):
        mean, std = (x.to(dtype).requires_grad_() for x in scattered(0, latent, decades))
        value = gaussian_norm_moment(mean, std, alpha=alpha)
        value.sum().backward()
        unit = value / (mean.square() + std.square()).sum(dim=-1).sqrt()
        results.append([value, mean.grad / unit[:, None], std.grad / unit[:, None]])
    torch.testing.assert_close(results[0][0].double(), results[1][0], rtol=1e-5, atol=0.0)
    for single, double in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-5 * alpha)


@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(ALPHAS))
@settings(max_examples=20)
def test_derivatives_against_adaptive_quadrature(seed, latent, alpha):
    """To 1e-6 of alpha E||v||^alpha / sqrt(E||v||^2), the natural size of a derivative."""
    mean, std = (x[0].requires_grad_() for x in scattered(seed, latent, 5.0))
    value = gaussian_norm_moment(mean, std, alpha=alpha)
    value.backward()
    mean_square = (mean.square() + std.square()).sum().detach()
    natural = alpha * float(value.detach() / mean_square.sqrt())
    for got, want in zip(
        (mean.grad, std.grad),
        derivatives_by_quadrature(mean.detach(), std.detach(), alpha),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * natural)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0, 1.9])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_nodes_follow_from_the_bounds(alpha, tolerance):
    """In the worst case, one centred dimension, the error is below the sum of the three bounds."""
    low, high, count = moments._grid(alpha, tolerance, deep=False)
    b = alpha / 2
    h = (high - low) / (count - 1)
    u = torch.linspace(low, high, count)
    middle = (h * -torch.expm1(-0.5 * torch.log1p(2 * u.exp())) * (-b * u).exp()).sum()
    slope = h * math.exp((1 - b) * low) / math.expm1((1 - b) * h)
    rest = h * math.exp(-b * high) / math.expm1(b * h)
    got = b / math.gamma(1 - b) * (slope + middle + rest)
    want = 2**b * math.gamma(b + 0.5) / math.sqrt(math.pi)
    assert abs(got / want - 1) < 3 * tolerance
    assert count < 30 + 20 * -math.log10(tolerance)  # and they are few


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e30, 1e36])
def test_no_square_overflows_or_vanishes(size):
    """Float32 to the ends of its range, where squares are out of it."""
    mean = torch.tensor([3 * size, 4 * size], dtype=torch.float32)
    torch.testing.assert_close(gaussian_norm_moment(mean, torch.zeros_like(mean)), 5 * mean[0] / 3)
    one = torch.tensor([3.0, 4.0])
    want = size * gaussian_norm_moment(one, one)
    got = gaussian_norm_moment(mean, mean)
    torch.testing.assert_close(got, want.float(), rtol=1e-5, atol=0.0)


def test_under_vmap():
    mean, std = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
    want = gaussian_norm_moment(mean, std)
    torch.testing.assert_close(torch.func.vmap(gaussian_norm_moment)(mean, std), want)


@pytest.mark.parametrize("positions", [1, 3, 1000])
def test_pieces_of_the_batch_do_not_matter(positions, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(4, 7, 3, generator=generator), DiagonalGaussian(*torch.rand(2, 7, 3))
    whole = expected_distance(x, target)
    monkeypatch.setitem(bernstein._TABLE, "cpu", positions * 59 * 3)
    assert torch.equal(expected_distance(x, target), whole)


@pytest.mark.parametrize("alpha", [0.0, 2.0, -1.0, math.nan])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 2\)"):
        gaussian_norm_moment(torch.zeros(2), torch.ones(2), alpha=alpha)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(value):
    good, bad = torch.ones(3), torch.tensor([1.0, value, 1.0])
    with pytest.raises(ValueError, match="mean must be finite; 1 of 3 values"):
        gaussian_norm_moment(bad, good)
    with pytest.raises(ValueError, match="std must be finite; 1 of 3 values"):
        gaussian_norm_moment(good, bad)


def test_negative_std():
    with pytest.raises(ValueError, match=r"std must not be negative; got -0.5"):
        gaussian_norm_moment(torch.zeros(2), torch.tensor([1.0, -0.5]))


def test_mismatched_shapes_are_named():
    target = DiagonalGaussian(torch.zeros(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"\(samples, 1, 3\); got \(4, 2, 3\)"):
        expected_distance(torch.zeros(4, 2, 3), target)
