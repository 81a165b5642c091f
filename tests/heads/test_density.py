"""Log-density of a flow: closed forms, a loop, total mass, Hutchinson's trace by enumeration."""

import itertools
import math

import pytest
import torch
from gaussian_flows import GAUSSIAN, MIXTURE
from seeding import seeded

from calmkit.heads.density import estimated_log_density, log_density
from calmkit.heads.ode import AdaptiveSolver, EulerSolver, MidpointSolver, RungeKutta4Solver

WEIGHT = torch.randn(3, 3, generator=seeded(1))


def wavy(x, t):
    """No closed form, and a Jacobian that is not symmetric."""
    return (x @ WEIGHT + 3 * t).sin() + 0.3 * x * t


def points(rows=20, size=3):
    return torch.randn(rows, size, generator=seeded())


@pytest.mark.parametrize("target, size", [(GAUSSIAN, 3), (MIXTURE, 2)])
def test_optimal_velocity_has_the_target_density(target, size):
    x = points(size=size)
    got = log_density(target.velocity, x, RungeKutta4Solver(400))
    torch.testing.assert_close(got, target.log_prob(x), rtol=0.0, atol=2e-6)


def test_adaptive_solver_gives_float64_accuracy():
    pytest.importorskip("torchdiffeq")
    for target, size in ((GAUSSIAN, 3), (MIXTURE, 2)):
        got = log_density(target.velocity, points(size=size), AdaptiveSolver(1e-11, 1e-11))
        want = target.log_prob(points(size=size))
        torch.testing.assert_close(got, want, rtol=0.0, atol=1e-8)


def test_error_has_the_solver_order():
    x = points(size=2)
    for kind, order in ((EulerSolver, 1), (MidpointSolver, 2), (RungeKutta4Solver, 4)):
        errors = [
            (log_density(MIXTURE.velocity, x, kind(n)) - MIXTURE.log_prob(x)).abs().max()
            for n in (30, 60, 120)
        ]
        measured = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert all(abs(got - order) < 0.35 for got in measured), (kind, measured)


def test_is_a_loop():
    """Midpoint steps back from t = 1, row by row, the trace from the whole Jacobian."""
    steps = 5
    want = torch.zeros(20)
    for row, x in enumerate(points()):
        total = 0.0
        for k in range(steps):
            t = torch.tensor(1 - k / steps)
            x_middle = x - wavy(x, t) / (2 * steps)
            t_middle = t - 1 / (2 * steps)
            jacobian = torch.autograd.functional.jacobian(
                lambda y, t=t_middle: wavy(y, t), x_middle
            )
            total += jacobian.trace() / steps
            x = x - wavy(x_middle, t_middle) / steps
        want[row] = -0.5 * (x @ x) - 1.5 * math.log(2 * math.pi) - total
    torch.testing.assert_close(log_density(wavy, points(), MidpointSolver(steps)), want)


@pytest.mark.parametrize("size", [1, 2])
def test_total_mass_is_one(size):
    side = torch.linspace(-9, 9, 121)
    x = torch.cartesian_prod(*[side] * size).view(-1, size)
    density = log_density(lambda x, t: wavy2(x, t, size), x, RungeKutta4Solver(40)).exp()
    total = density.sum() * (side[1] - side[0]) ** size
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=0.0, atol=1e-5)


def wavy2(x, t, size):
    return (x @ WEIGHT[:size, :size] + 3 * t).sin() + 0.3 * x * t


def signs(size):
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=size)))


def test_all_sign_probes_together_are_exact():
    """The mean over all 2^l sign vectors, each equally likely: the estimate is unbiased."""
    solver, x = MidpointSolver(7), points()
    probes = signs(3)[:, None].expand(-1, 20, -1)
    exact = log_density(wavy, x, solver)
    torch.testing.assert_close(estimated_log_density(wavy, x, probes, solver), exact)
    single = torch.stack([estimated_log_density(wavy, x, probe[None], solver) for probe in probes])
    torch.testing.assert_close(single.mean(0), exact)
    assert single.std(0).min() > 1e-3  # one alone is not exact


def test_probes_of_unit_covariance_are_unbiased():
    """Any finite law with E e e^T = I, here +- sqrt(l) times the unit vectors; others are not."""
    solver, x = MidpointSolver(7), points()
    units = torch.eye(3) * math.sqrt(3)
    probes = torch.cat([units, -units])[:, None].expand(-1, 20, -1)
    exact = log_density(wavy, x, solver)
    torch.testing.assert_close(estimated_log_density(wavy, x, probes, solver), exact)
    wrong = estimated_log_density(wavy, x, 1.1 * probes, solver)
    assert (wrong - exact).abs().max() > 0.1


def test_sign_probes_are_exact_for_a_diagonal_jacobian():
    """Where the dimensions do not interact, one probe of signs has no variance at all."""
    x, solver = points(), MidpointSolver(4)
    probes = torch.randn(1, 20, 3, generator=seeded(2)).sign()
    torch.testing.assert_close(
        estimated_log_density(lambda x, t: (x + t).sin(), x, probes, solver),
        log_density(lambda x, t: (x + t).sin(), x, solver),
    )


@pytest.mark.parametrize("shape", [(2,), (1,), (0, 2), (3, 2, 1), (2, 0, 3)], ids=str)
def test_shapes(shape):
    x = torch.zeros(shape)
    for got in (
        log_density(lambda x, t: x * t, x, MidpointSolver(2)),
        estimated_log_density(lambda x, t: x * t, x, torch.ones(2, *shape), MidpointSolver(2)),
    ):
        assert got.shape == shape[:-1] and torch.isfinite(got).all()


def test_evaluates_the_velocity_once_for_all_directions():
    calls = []

    def field(x, t):
        calls.append(x.shape)
        return wavy(x, t)

    log_density(field, points(), MidpointSolver(3))
    assert calls == [(20, 3)] * 6


def test_gradient_reaches_the_velocity():
    """d/da log p for v = a x: p is N(0, exp(2 a))."""
    a = torch.tensor(0.4, requires_grad=True)
    x = points(size=1)
    (got,) = torch.autograd.grad(
        log_density(lambda x, t: a * x, x, RungeKutta4Solver(20)).sum(), a
    )
    want = (x.square() * (-2 * a.detach()).exp() - 1).sum()
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0.0)


def test_no_probe_is_refused():
    with pytest.raises(ValueError, match="probes must hold at least 1 draw; got 0"):
        estimated_log_density(wavy, points(), torch.zeros(0, 20, 3), MidpointSolver(1))
