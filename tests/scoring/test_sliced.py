"""Sliced CRPS: loops, its constant, and propriety over directions, enumerated or integrated."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from score_problems import expectation, finite_problem, problems, seeds

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import energy_score
from calmkit.scoring.crps import crps
from calmkit.scoring.sliced import SlicedCRPS, sliced_crps


@st.composite
def sliced_problems(draw):
    """Samples, outcome and directions."""
    x, y = draw(problems())
    g = torch.Generator().manual_seed(draw(seeds))
    return x, y, torch.randn(draw(st.integers(1, 4)), *y.shape, generator=g)


@given(sliced_problems(), st.sampled_from([0.0, 0.1, 2.0]))
def test_matches_a_loop(problem, scale):
    """Shadow by shadow, of a Gaussian outcome (a point mass at scale 0)."""
    x, mean, noise = problem
    m, batch, std = len(x), mean.shape[:-1], scale * mean.abs()
    want = torch.empty(batch)
    for index in itertools.product(*map(range, batch)):
        scores = []
        for direction in noise[(slice(None), *index)]:
            theta = direction / direction.norm()
            xs = [float(theta @ x[(i, *index)]) for i in range(m)]
            center = float(theta @ mean[index])
            width = math.sqrt(float((theta * std[index]).square().sum()))
            if scale == 0:
                error = sum(abs(v - center) for v in xs) / m
            else:
                error = sum(stats.foldnorm.mean(abs(v - center) / width) for v in xs) * width / m
            pairs = sum(abs(u - v) for u, v in itertools.combinations(xs, 2))
            scores.append(error - pairs / (m * (m - 1)))
        want[index] = sum(scores) / len(scores)
    rule = SlicedCRPS(num_directions=len(noise))
    torch.testing.assert_close(rule.score_from(x, DiagonalGaussian(mean, std), noise), want)
    if scale == 0:
        torch.testing.assert_close(sliced_crps(x, mean, noise), want)


def test_rule_is_the_mean_over_drawn_outcomes():
    """The target term in closed form against 50 000 outcomes; a wrong one is rejected."""
    g = torch.Generator().manual_seed(0)
    samples, mean = torch.randn(4, 3, generator=g), torch.randn(3, generator=g)
    std, noise = 0.5 + torch.rand(3, generator=g), torch.randn(8, 3, generator=g)
    target, count = DiagonalGaussian(mean, std), 50_000
    drawn = sliced_crps(
        samples[:, None].expand(-1, count, -1),
        target.sample(count, g),
        noise[:, None].expand(-1, count, -1),
    )
    error = drawn.std() / count**0.5

    def z(target):
        return (SlicedCRPS(8).score_from(samples, target, noise) - drawn.mean()).abs() / error

    assert z(target) < 4.9  # 1e-6 two-sided
    assert z(DiagonalGaussian(mean, 1.1 * std)) > 4.9


def constant(latent):
    return math.gamma(latent / 2) / (math.sqrt(math.pi) * math.gamma((latent + 1) / 2))


@pytest.mark.parametrize("latent", [2, 3, 4, 7, 32])
def test_mean_projection_of_a_vector(latent):
    """theta_1 on the sphere has density proportional to (1 - t^2)^((l-3)/2): t = sin(angle)."""

    def density(angle):
        return math.cos(angle) ** (latent - 2)

    above, _ = integrate.quad(lambda a: math.sin(a) * density(a), 0, math.pi / 2)
    below, _ = integrate.quad(density, 0, math.pi / 2)
    assert constant(latent) == pytest.approx(above / below, rel=1e-9)


@given(seeds)
def test_mean_over_directions_is_the_energy_score_in_the_plane(seed):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(4, 2, generator=g), torch.randn(2, generator=g)
    angle = (torch.arange(20_000) + 0.5) * (math.pi / 20_000)
    directions = torch.stack((angle.cos(), angle.sin()), dim=-1)
    # Equally spaced angles integrate |cos| with an error of their spacing squared.
    torch.testing.assert_close(
        sliced_crps(x, y, directions), constant(2) * energy_score(x, y), rtol=0, atol=1e-6
    )


def test_mean_over_directions_is_the_energy_score_in_five_dimensions():
    """By 50 000 directions; the constant of four dimensions is rejected."""
    g = torch.Generator().manual_seed(0)
    x, y, count = torch.randn(4, 5, generator=g), torch.randn(5, generator=g), 50_000
    target = DiagonalGaussian.point_mass(y.expand(count, -1))
    drawn = SlicedCRPS(1).score(x[:, None].expand(-1, count, -1), target, g)
    error = drawn.std() / count**0.5

    def z(factor):
        return (factor * energy_score(x, y) - drawn.mean()).abs() / error

    assert z(constant(5)) < 4.9  # 1e-6 two-sided
    assert z(constant(4)) > 4.9


@given(sliced_problems())
def test_one_dimension_is_the_crps(problem):
    x, y, noise = (v[..., :1] for v in problem)
    torch.testing.assert_close(sliced_crps(x, y, noise), crps(x, y).squeeze(-1))


@given(sliced_problems(), st.floats(0.1, 10.0), seeds)
def test_translation_homogeneity_and_rotation(problem, factor, seed):
    x, y, noise = problem
    base = sliced_crps(x, y, noise)
    torch.testing.assert_close(sliced_crps(x + 3, y + 3, noise), base)
    torch.testing.assert_close(sliced_crps(-factor * x, -factor * y, noise), factor * base)
    torch.testing.assert_close(sliced_crps(x, y, -factor * noise), base)
    g = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(x.shape[-1], x.shape[-1], generator=g))
    torch.testing.assert_close(sliced_crps(x @ turn, y @ turn, noise @ turn), base)


def with_directions(seed):
    directions = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed))
    return *finite_problem(seed), directions


def population_score(p, q, support, directions):
    """E|X - y| - 1/2 E|X - X'| of the shadows: the mean over directions."""
    shadows = support @ (directions / directions.norm(dim=-1, keepdim=True)).T
    d = (shadows[:, None] - shadows).abs().mean(dim=-1)
    return p @ d @ q - 0.5 * q @ d @ q


def expected_score(p, q, support, directions):
    """E_{y ~ p} E_{x ~ q} of the score on given directions."""

    def score(x, y):
        return sliced_crps(x, y, directions[:, None].expand(-1, len(y), -1))

    return expectation(score, p, q, support)


@pytest.mark.parametrize("drawn", [1, 2])
@given(seed=seeds)
def test_expectation_over_drawn_directions_is_the_population_score(drawn, seed):
    """Directions uniform on a finite set, one or two of them drawn for each score."""
    support, p, q, directions = with_directions(seed)
    sets = list(itertools.product(directions, repeat=drawn))
    got = sum(expected_score(p, q, support, torch.stack(chosen)) for chosen in sets) / len(sets)
    want = population_score(p, q, support, directions)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


@given(seeds)
def test_proper_for_any_directions(seed):
    support, p, q, directions = with_directions(seed)
    truth = expected_score(p, p, support, directions)
    assert expected_score(p, q, support, directions) >= truth - 1e-12


@given(seeds)
def test_strictly_proper_over_all_directions(seed):
    """Which are replaced by 16: more than the lines on which three points' shadows can meet."""
    support, p, q = finite_problem(seed)
    angle = torch.arange(16) * (math.pi / 16)
    directions = torch.stack((angle.cos(), angle.sin()), dim=-1)
    truth = expected_score(p, p, support, directions)
    assert expected_score(p, q, support, directions) > truth
    assert SlicedCRPS().strictly_proper


def test_fixed_directions_see_their_shadows_only():
    """Equal and independent signs have the same shadows on the axes, not on the diagonal."""
    signs = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    independent, equal = torch.full((4,), 0.25), torch.tensor([0.5, 0.0, 0.0, 0.5])

    def excess(directions):
        truth = expected_score(equal, equal, signs, directions)
        return expected_score(equal, independent, signs, directions) - truth

    torch.testing.assert_close(excess(torch.eye(2)), torch.tensor(0.0), rtol=0, atol=1e-12)
    assert excess(torch.tensor([[1.0, 0.0], [1.0, 1.0]])) > 0.01


def test_far_from_the_origin():
    """In float32, shadows of the offsets lose nothing that shadows of the places would."""
    g = torch.Generator().manual_seed(0)
    x, y, noise = (torch.randn(*s, 64, generator=g) for s in [(5,), (), (16,)])
    x, y, noise = ((v * 64).round().div(64).float() for v in (x, y, noise))
    got = sliced_crps(x + 4096, y + 4096, noise)  # exact: 12 + 6 + 3 bits
    torch.testing.assert_close(got, sliced_crps(x, y, noise))


def test_bad_input():
    x, y, noise = torch.zeros(2, 3), torch.zeros(3), torch.ones(4, 3)
    with pytest.raises(ValueError, match="num_directions must be at least 1; got 0"):
        sliced_crps(x, y, noise[:0])
    with pytest.raises(ValueError, match="num_directions must be at least 1; got 0"):
        SlicedCRPS(0)
    with pytest.raises(ValueError, match="noise must be finite"):
        sliced_crps(x, y, noise / 0)
