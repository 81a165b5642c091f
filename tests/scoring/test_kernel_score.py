"""Kernel score: loops, scoringrules, other integrals, strict propriety by enumeration."""

import itertools
import math
from functools import partial

import jsonargparse
import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special
from score_problems import expectation, finite_problem, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import ScoringRule
from calmkit.scoring.combined import SpreadWeighted
from calmkit.scoring.kernel import (
    KernelScore,
    expected_dissimilarity,
    expected_pull,
    kernel_score,
)
from calmkit.scoring.kernels import GaussianKernel, InverseMultiquadricKernel, LaplaceKernel

FORMULAS = {
    GaussianKernel: lambda r, b: np.exp(-(r**2) / (2 * b**2)),
    LaplaceKernel: lambda r, b: np.exp(-r / b),
    InverseMultiquadricKernel: lambda r, b: 1 / np.sqrt(1 + (r / b) ** 2),
}
# The accuracy that `expected_dissimilarity` states, at one bandwidth.
STATED = {"rtol": 0.0, "atol": 1e-8}

kernels = st.builds(
    lambda kind, bandwidths: kind(bandwidths),
    st.sampled_from(list(FORMULAS)),
    st.lists(st.floats(0.2, 5.0), min_size=1, max_size=3),
)
every_kernel = pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)


def by_functions(samples, observation, kernel):
    return kernel_score(samples, observation, kernel=kernel)


def by_rule(samples, observation, kernel):
    return KernelScore(kernel).score(samples, DiagonalGaussian.point_mass(observation))


both_ways = pytest.mark.parametrize("score", [by_functions, by_rule])


@both_ways
@given(problems(), kernels)
def test_matches_a_loop(score, problem, kernel):
    x, y = problem
    m, batch = x.shape[0], y.shape[:-1]

    def k(a, b):
        r = float((a - b).norm())
        return sum(FORMULAS[type(kernel)](r, width) for width in kernel.bandwidths)

    want = torch.empty(batch)
    for index in itertools.product(*map(range, batch)):
        xs, outcome = [x[(i, *index)] for i in range(m)], y[index]
        error = sum(k(v, outcome) for v in xs) / m
        spread = sum(k(u, v) for u, v in itertools.combinations(xs, 2)) / (m * (m - 1))
        want[index] = len(kernel.bandwidths) / 2 - error + spread
    torch.testing.assert_close(score(x, y, kernel), want)


@both_ways
@given(problems(), st.lists(st.floats(0.2, 5.0), min_size=1, max_size=3))
def test_matches_scoringrules(score, problem, bandwidths):
    """Its kernel has bandwidth 1 and its score the constant k(0)/2, as here."""
    x, y = problem
    rows = x.flatten(1, -2) if y.ndim > 1 else x[:, None]
    want = sum(
        scoringrules.gksmv_ensemble(
            y.reshape(-1, y.shape[-1]).numpy() / b,
            rows.transpose(0, 1).numpy() / b,
            estimator="fair",
            backend="numpy",
        )
        for b in bandwidths
    )
    got = score(x, y, GaussianKernel(bandwidths)).reshape(-1)
    torch.testing.assert_close(got, torch.from_numpy(np.asarray(want)))


@both_ways
@given(problems(), kernels, st.floats(0.1, 10.0), seeds)
def test_translation_rotation_permutation_and_scale(score, problem, kernel, factor, seed):
    x, y = problem
    g = torch.Generator().manual_seed(seed)
    base = score(x, y, kernel)
    turn = torch.linalg.qr(torch.randn(y.shape[-1], y.shape[-1], generator=g)).Q
    order = torch.randperm(len(x), generator=g)
    scaled = type(kernel)([factor * b for b in kernel.bandwidths])
    torch.testing.assert_close(score(x + 3, y + 3, kernel), base)
    torch.testing.assert_close(score(x @ turn, y @ turn, kernel), base)
    torch.testing.assert_close(score(x[order], y, kernel), base)
    torch.testing.assert_close(score(factor * x, factor * y, scaled), base)


@both_ways
@given(seeds, kernels, st.integers(2, 4))
def test_expectation_is_the_population_score(score, seed, kernel, draws):
    support, p, q = finite_problem(seed)
    rho = kernel.at_zero - kernel.value(torch.cdist(support, support))
    want = p @ rho @ q - 0.5 * q @ rho @ q
    got = expectation(partial(score, kernel=kernel), p, q, support, draws=draws)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@both_ways
@given(seeds, kernels)
def test_strictly_proper_by_half_the_squared_mmd(score, seed, kernel):
    support, p, q = finite_problem(seed)
    score = partial(score, kernel=kernel)
    excess = expectation(score, p, q, support) - expectation(score, p, p, support)
    matrix = kernel.value(torch.cdist(support, support))
    mmd_squared = (q @ matrix @ q) - 2 * (q @ matrix @ p) + (p @ matrix @ p)
    torch.testing.assert_close(excess, 0.5 * mmd_squared, rtol=1e-12, atol=1e-12)
    assert excess > 0
    assert KernelScore(kernel).strictly_proper


@both_ways
@every_kernel
def test_certain_and_right_is_zero(score, kind):
    x = torch.ones(3, 2, dtype=torch.float32)
    assert score(x, x[0], kind([0.5, 2.0])) == 0


def expected(mean, std, kernel):
    """E k(||v||), v ~ N(mean, diag(std^2)), from the tested function."""
    target = DiagonalGaussian(torch.as_tensor(mean), torch.as_tensor(std))
    found = expected_dissimilarity(torch.zeros_like(target.mean)[None], target, kernel=kernel)
    return kernel.at_zero - found.squeeze(0)


@given(problems(), st.lists(st.floats(0.2, 5.0), min_size=1, max_size=3), seeds)
def test_gaussian_kernel_is_a_product_over_dimensions(problem, bandwidths, seed):
    mean, std = problem[0][0].reshape(-1), problem[0][1].reshape(-1).abs()
    want = sum(
        math.prod(
            b / math.sqrt(b**2 + s**2) * math.exp(-(m**2) / (2 * (b**2 + s**2)))
            for m, s in zip(mean.tolist(), std.tolist(), strict=True)
        )
        for b in bandwidths
    )
    got = expected(mean, std, GaussianKernel(bandwidths))
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-12, atol=1e-14)


def laplace_in_one_dimension(m, s):
    """E exp(-|v|), v ~ N(m, s^2), m >= 0, by completing the square on either side of 0."""
    inner, outer = (s - m / s) / math.sqrt(2), (s + m / s) / math.sqrt(2)
    density = math.exp(-0.5 * (m / s) ** 2) if m / s < 40 else 0.0
    left = density * special.erfcx(outer)
    if inner < 0:
        return 0.5 * (left + math.exp(s**2 / 2 - m) * special.erfc(inner))
    return 0.5 * (left + density * special.erfcx(inner))


POWERS = np.linspace(-9, 6, 46)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_laplace_kernel_in_one_dimension(dtype):
    """All distances and spreads from 0 to a million bandwidths."""
    grid = [(0.0 if a == -9 else 10**a, 10**b) for a, b in itertools.product(POWERS, repeat=2)]
    mean, std = torch.tensor(grid, dtype=dtype).T
    want = [laplace_in_one_dimension(float(m), float(s)) for m, s in zip(mean, std, strict=True)]
    got = expected(mean[:, None], std[:, None], LaplaceKernel())
    atol = 1e-8 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(got.double(), torch.tensor(want), rtol=0.0, atol=atol)


@pytest.mark.parametrize("power", range(-9, 7))
def test_centred_closed_forms(power):
    """Bessel's K_0 in one dimension, and with the radius of two equal ones an error function."""
    s = 10.0**power
    one, two = torch.tensor([s]), torch.tensor([s, s])
    multiquadric, laplace = InverseMultiquadricKernel(), LaplaceKernel()
    bessel = special.k0e(1 / (4 * s**2)) / (math.sqrt(2 * math.pi) * s)
    plane = math.sqrt(math.pi / 2) / s * special.erfcx(1 / (math.sqrt(2) * s))
    # int_0^oo r e^(-r^2/2) e^(-s r) dr
    radius = 1 - s * math.sqrt(math.pi / 2) * special.erfcx(s / math.sqrt(2))
    for std, kernel, want in (
        (one, multiquadric, bessel),
        (two, multiquadric, plane),
        (two, laplace, radius),
    ):
        got = expected(torch.zeros_like(std), std, kernel)
        # The last form cancels as s grows.
        atol = 1e-8 + 1e-15 * s
        torch.testing.assert_close(got, torch.tensor(float(want)), rtol=0.0, atol=atol)


def by_quadrature(mean, std, kind):
    """int phi dnu over u = log t, adaptively, from the densities of the docstring, b = 1."""

    def integrand(u):
        t = math.exp(u)
        log_phi = sum(
            -0.5 * math.log1p(2 * t * s**2) - t * m**2 / (1 + 2 * t * s**2)
            for m, s in zip(mean, std, strict=True)
        )
        if kind is LaplaceKernel:
            log_density = -1 / (4 * t) - 1.5 * u - math.log(2 * math.sqrt(math.pi))
        else:
            log_density = -0.5 * u - t - 0.5 * math.log(math.pi)
        return math.exp(log_phi + log_density + u)

    ends = (-5.0, 90.0) if kind is LaplaceKernel else (-90.0, 5.0)
    inner = [-40.0, -20.0, -10.0, 0.0, 10.0, 20.0, 40.0]
    inner = [u for u in inner if ends[0] < u < ends[1]]
    return integrate.quad(integrand, *ends, points=inner, limit=500, epsabs=1e-11)[0]


@pytest.mark.parametrize("kind", [LaplaceKernel, InverseMultiquadricKernel])
@given(
    st.lists(
        st.tuples(st.floats(-6, 6), st.floats(-6, 6), st.sampled_from([0.0, 1.0])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_against_adaptive_quadrature(kind, dimensions, b):
    """Means and standard deviations over twelve orders of magnitude, some of them zero."""
    mean = torch.tensor([10.0**m for m, _, _ in dimensions])
    std = torch.tensor([10.0**s * on for _, s, on in dimensions])
    want = by_quadrature(mean.tolist(), std.tolist(), kind)
    got = expected(b * mean, b * std, kind(b))
    torch.testing.assert_close(got, torch.tensor(want), **STATED)


@every_kernel
@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.0, 0.0), (1.0, 0.3)), ((0.5, -2.0), (0.4, 1.5)), ((4.0, 1.0), (0.1, 3.0))],
)
def test_against_the_integral_over_the_plane(kind, mean, std):
    """No mixture involved: density times kernel, in polar coordinates about the kernel's kink."""
    bandwidths = [0.5, 2.0]

    # Gauss-Legendre in panels along the radius; the angle is periodic.
    angle = np.arange(600) * (2 * math.pi / 600)
    node, weight = np.polynomial.legendre.leggauss(20)
    edges, half = np.linspace(0, 30, 61), 0.25
    radius = (edges[:-1, None] + half * (node + 1)).ravel()[:, None]
    exponent = ((radius * np.cos(angle) - mean[0]) / std[0]) ** 2
    exponent += ((radius * np.sin(angle) - mean[1]) / std[1]) ** 2
    density = (np.exp(-0.5 * exponent) / (std[0] * std[1])).mean(axis=1, keepdims=True)
    kernel = sum(FORMULAS[kind](radius, b) for b in bandwidths)
    want = np.tile(half * weight, 60) @ (radius * density * kernel)[:, 0]
    got = expected(torch.tensor(mean), torch.tensor(std), kind(bandwidths))
    torch.testing.assert_close(got, torch.tensor(float(want)), rtol=0.0, atol=2e-8)


@every_kernel
def test_rule_is_the_mean_over_posterior_draws(kind):
    """The target term in closed form against 100 000 drawn targets; a wrong one is rejected."""
    g, count, rule = torch.Generator().manual_seed(0), 100_000, KernelScore(kind([0.5, 2.0]))
    samples, mean = torch.randn(4, 3, generator=g), torch.randn(3, generator=g)
    std = 0.5 + torch.rand(3, generator=g)
    outcomes = DiagonalGaussian(mean, std).sample(count, g)
    drawn = kernel_score(
        samples[:, None].expand(-1, count, -1).contiguous(), outcomes, kernel=rule.kernel
    )
    error = drawn.std() / count**0.5

    def z(target):
        return (rule.score(samples, target) - drawn.mean()).abs() / error

    assert z(DiagonalGaussian(mean, std)) < 4.9  # 1e-6 two-sided
    assert z(DiagonalGaussian(mean, 1.1 * std)) > 4.9


@given(st.floats(-100, 100), kernels, seeds)
def test_point_mass_is_the_plain_kernel(shift, kernel, seed):
    """Exactly, whatever the spread of the other positions is; and they are left alone."""
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed))
    x[0, 0] = shift
    x[1] *= 1e6
    location, std = torch.full((5, 3), shift), torch.zeros(5, 3)
    std[2:] = 0.5
    got = expected_dissimilarity(x, DiagonalGaussian(location, std), kernel=kernel)
    want = kernel.dissimilarity((x - shift).norm(dim=-1))
    torch.testing.assert_close(got[:, :2], want[:, :2], rtol=1e-12, atol=0.0)
    others = DiagonalGaussian(location[2:], std[2:])
    torch.testing.assert_close(got[:, 2:], expected_dissimilarity(x[:, 2:], others, kernel=kernel))


@given(kernels, seeds)
def test_expectation_joins_the_point_mass_smoothly(kernel, seed):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    target = DiagonalGaussian(torch.zeros(3), torch.full((3,), 1e-10))
    got = expected_dissimilarity(x, target, kernel=kernel)
    want = kernel.dissimilarity(x.norm(dim=-1))
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-8 * kernel.at_zero)


@every_kernel
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("on", [0.0, 1.0])
def test_gradients_agree_with_finite_differences(kind, scale, on):
    """Also where two of four dimensions are without spread."""
    generator = torch.Generator().manual_seed(0)
    x = (scale * torch.randn(3, 2, 4, generator=generator)).requires_grad_()
    mean = (scale * torch.randn(2, 4, generator=generator)).requires_grad_()
    std = scale * torch.rand(2, 4, generator=generator)
    std[:, :2] *= on
    rule = KernelScore(kind([0.5 * scale, 2 * scale]))

    def of(x, mean, std):
        target = DiagonalGaussian(mean, std.abs())  # even in std: differences reach below 0
        return scale * rule.score_from(x, target, x[:0])

    torch.autograd.gradcheck(of, (x, mean, std.requires_grad_()), eps=1e-5 * scale)


@every_kernel
def test_gradient_at_a_tie_is_zero(kind):
    """Samples on each other and on the outcome; with a spread, by symmetry at its mean."""
    for std in (0.0, 1.0):
        x = torch.zeros(2, 3, requires_grad=True)
        target = DiagonalGaussian(torch.zeros(3), torch.full((3,), std))
        KernelScore(kind()).score(x, target).backward()
        assert torch.equal(x.grad, torch.zeros(2, 3))


@every_kernel
@pytest.mark.parametrize("latent", [1, 128])
def test_single_precision_is_close(kind, latent):
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 64, latent, generator=generator)
    kernel = kind(math.sqrt(2 * latent))
    single = expected(mean.float(), std.abs().float(), kernel)
    torch.testing.assert_close(
        single.double(), expected(mean, std.abs(), kernel), rtol=0.0, atol=2e-6
    )


@every_kernel
def test_a_spread_weight_of_one_changes_nothing(kind):
    x, target = torch.randn(4, 3), DiagonalGaussian(torch.zeros(3), torch.ones(3))
    rule = KernelScore(kind())
    torch.testing.assert_close(SpreadWeighted(rule, 1.0).score(x, target), rule.score(x, target))


@pytest.mark.parametrize("bandwidths", [2, 0.5, [0.5, 1, 2]], ids=str)
@every_kernel
def test_a_config_builds_it(kind, bandwidths):
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--rule", type=ScoringRule)
    kernel = {"class_path": kind.__name__, "init_args": {"bandwidths": bandwidths}}
    rule = {"class_path": "KernelScore", "init_args": {"kernel": kernel}}
    built = parser.instantiate(parser.parse_object({"rule": rule})).rule
    assert built == KernelScore(kind(bandwidths))


def test_a_config_must_name_the_kernel():
    with pytest.raises(TypeError, match="kernel"):
        KernelScore()


def test_bad_targets_are_refused():
    x, zero = torch.zeros(2, 3), torch.zeros(3)
    with pytest.raises(ValueError, match="std must not be negative"):
        expected_dissimilarity(x, DiagonalGaussian(zero, zero - 1), kernel=GaussianKernel())
    with pytest.raises(ValueError, match="samples must have shape"):
        expected_dissimilarity(x[:, :2], DiagonalGaussian(zero, zero), kernel=GaussianKernel())


@every_kernel
@pytest.mark.parametrize("std", [0.0, 1e-3, 0.4, 3.0])
def test_expected_pull_is_an_integral_over_the_target(kind, std):
    """In one dimension, by the target's quantiles; at a point mass the pull itself."""
    kernel = kind([0.5, 2.0])
    x = torch.tensor([-1.0, 0.3, 0.31, 4.0])[:, None, None]
    mean = torch.tensor([[0.3]])
    found = expected_pull(x, DiagonalGaussian(mean, torch.full_like(mean, std)), kernel=kernel)
    quantiles = torch.special.ndtri((torch.arange(200_000) + 0.5) / 200_000)
    away = mean + std * quantiles[:, None] - x
    want = (kernel.value(away.abs()) * away).mean(dim=1, keepdim=True)
    torch.testing.assert_close(found, want, rtol=0.0, atol=2e-5 * max(std, 1e-2))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_expected_pull_of_a_gaussian_kernel_is_the_gradient_of_its_expectation(batch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *batch, 5, generator=generator)
    mean, std = torch.randn(2, *batch, 5, generator=generator)
    target, kernel = DiagonalGaussian(mean, std.abs()), GaussianKernel(1.3)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        expected_dissimilarity(leaf, target, kernel=kernel).sum(), leaf
    )
    found = expected_pull(leaf, target, kernel=kernel)
    torch.testing.assert_close(found, -(1.3**2) * gradient)
    assert not found.requires_grad
