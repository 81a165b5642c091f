"""Solvers: order conditions, measured orders, torchdiffeq, times, the worst row's error."""

import functools
import itertools
import math
import sys

import pytest
import torch
from gaussian_flows import GAUSSIAN, MIXTURE
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from seeding import seeded

from calmkit.heads.ode import (
    AdaptiveSolver,
    EulerSolver,
    FixedStepSolver,
    HeunSolver,
    MidpointSolver,
    RungeKutta4Solver,
)

# Each with its order and its evaluations a step.
FIXED = {
    EulerSolver: (1, 1),
    MidpointSolver: (2, 2),
    HeunSolver: (2, 2),
    RungeKutta4Solver: (4, 4),
}

every_fixed = pytest.mark.parametrize("kind", list(FIXED), ids=lambda kind: kind.__name__)


def every_solver(rtol=1e-9):
    pytest.importorskip("torchdiffeq")
    return [*(kind(6) for kind in FIXED), AdaptiveSolver(rtol, rtol)]


def curved(x, t):
    """x' = cos(t) sin(x), so tan(x / 2) grows by exp(sin(t))."""
    return t.cos() * x.sin()


def curved_end(x, start=0.0, end=1.0):
    return 2 * ((x / 2).tan() * math.exp(math.sin(end) - math.sin(start))).atan()


def points(rows=50, size=3):
    return 4 * torch.rand(rows, size, generator=seeded()) - 2


@every_fixed
def test_order_conditions(kind):
    """The tableau's weights integrate all trees up to its order, and some of the next not."""
    *rows, b = kind().tableau
    stages = len(rows)
    a = torch.zeros(stages, stages)
    for i, row in enumerate(rows):
        assert len(row) == i
        a[i, :i] = torch.tensor(row)
    b = torch.tensor(b)
    c = a.sum(1)
    trees = {
        1: [(b.sum(), 1.0)],
        2: [(b @ c, 1 / 2)],
        3: [(b @ c**2, 1 / 3), (b @ a @ c, 1 / 6)],
        4: [
            (b @ c**3, 1 / 4),
            (b @ (c * (a @ c)), 1 / 8),
            (b @ a @ c**2, 1 / 12),
            (b @ a @ a @ c, 1 / 24),
        ],
        5: [(b @ c**4, 1 / 5), (b @ a @ a @ a @ c, 1 / 120)],
    }
    order, evaluations = FIXED[kind]
    assert stages == evaluations
    for p in range(1, order + 1):
        assert all(abs(got - want) < 1e-15 for got, want in trees[p])
    assert any(abs(got - want) > 1e-3 for got, want in trees[order + 1])


def measured_orders(kind, field, x, want, counts, **times):
    """log2 of how much the error falls when the steps are halved."""
    errors = [(kind(n).integrate(field, x, **times) - want).abs().max() for n in counts]
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


@every_fixed
@pytest.mark.parametrize("start, end", [(0.0, 1.0), (1.0, 0.0), (0.3, -0.5)])
def test_measured_order(kind, start, end):
    x = points()
    want = curved_end(x, start, end)
    orders = measured_orders(kind, curved, x, want, (20, 40, 80), start=start, end=end)
    assert all(abs(order - FIXED[kind][0]) < 0.1 for order in orders), orders


@functools.cache
def mixture_end():
    return RungeKutta4Solver(1000).integrate(MIXTURE.velocity, points(size=2))


@every_fixed
def test_measured_order_on_an_optimal_velocity(kind):
    x, want = points(size=2), mixture_end()
    orders = measured_orders(kind, MIXTURE.velocity, x, want, (40, 80, 160))
    assert all(abs(order - FIXED[kind][0]) < 0.25 for order in orders), orders


def test_midpoint_has_order_three_for_a_gaussian():
    """Its leading error cancels over [0, 1] there; Heun's does not."""
    x, want = points(), GAUSSIAN.end(points())
    orders = measured_orders(MidpointSolver, GAUSSIAN.velocity, x, want, (50, 100, 200, 400))
    assert all(abs(order - 3) < 0.1 for order in orders), orders


@every_fixed
def test_growth_is_the_exponential_series(kind):
    """x' = x grows by sum_{k <= p} h^k / k! a step."""
    h = 1 / 4
    growth = sum(h**k / math.factorial(k) for k in range(FIXED[kind][0] + 1))
    x = torch.tensor([[2.0]])
    torch.testing.assert_close(kind(4).integrate(lambda x, t: x, x), x * growth**4)


@pytest.mark.parametrize(
    "kind, name", [(EulerSolver, "euler"), (MidpointSolver, "midpoint"), (HeunSolver, "heun2")]
)
@pytest.mark.parametrize("start, end", [(0.0, 1.0), (1.0, 0.0)])
def test_against_torchdiffeq(kind, name, start, end):
    odeint = pytest.importorskip("torchdiffeq").odeint
    times = torch.linspace(start, end, 8)
    want = odeint(lambda t, x: curved(x, t), points(), times, method=name)[-1]
    torch.testing.assert_close(kind(7).integrate(curved, points(), start, end), want)


def visited(solver, x, rate=1.0, **times):
    seen = []

    def field(x, t):
        assert t.shape == () and t.dtype == x.dtype
        seen.append(float(t))
        return -rate * x * t.cos()

    solver.integrate(field, x, **times)
    return seen


ends = st.floats(-2.0, 2.0)


@given(st.sampled_from(list(FIXED)), st.integers(1, 30), ends, ends)
def test_times_are_exact_at_the_ends_and_within(kind, steps, start, end):
    seen = visited(kind(steps), torch.ones(1, 1), start=start, end=end)
    assert seen[0] == start
    if kind in (HeunSolver, RungeKutta4Solver):
        assert seen[-1] == end
    rounding = 1e-15  # of numbers up to 2
    assert all(min(start, end) - rounding <= t <= max(start, end) + rounding for t in seen)
    assert len(seen) == kind(steps).evaluations == steps * FIXED[kind][1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adaptive_stays_within_the_times(dtype):
    """Also where a slow field would allow a first step far beyond the end."""
    x = torch.full((2, 3), 1e-3, dtype=dtype)
    for solver in (every_solver()[-1], AdaptiveSolver(0.1, 0.1)):
        assert solver.evaluations is None
        for start, end in ((0.0, 1.0), (1.0, 0.0)):
            seen = visited(solver, x, rate=1e-4, start=start, end=end)
            assert seen[0] == start
            # Its last stage looks at the number next to the end.
            assert min(abs(t - end) for t in seen) < 1e-6
            assert all(0 <= t <= 1 for t in seen)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("start, end", [(0.0, 1.0), (1.0, 0.0)])
def test_adaptive_keeps_its_tolerance(tolerance, start, end):
    pytest.importorskip("torchdiffeq")
    got = AdaptiveSolver(tolerance, tolerance).integrate(curved, points(), start, end)
    error = (got - curved_end(points(), start, end)).abs().max()
    assert error < 10 * tolerance  # of one step; there are a few


def test_adaptive_minds_the_worst_row():
    """One hard row among a thousand that stand still is solved as if it were alone."""
    odeint = pytest.importorskip("torchdiffeq").odeint

    def field(x, t):
        return torch.cat([(20 * t).cos() * x[:1].sin() * 8, 0 * x[1:]])

    x = torch.ones(1000, 1)
    want = 2 * ((x[0] / 2).tan() * math.exp(8 / 20 * math.sin(20.0))).atan()
    got = AdaptiveSolver(1e-6, 1e-6).integrate(field, x)[0]
    alone = AdaptiveSolver(1e-6, 1e-6).integrate(field, x[:1])[0]
    over_all = odeint(lambda t, x: field(x, t), x, torch.tensor([0.0, 1.0]), rtol=1e-6, atol=1e-6)[
        -1, 0
    ]
    torch.testing.assert_close(got, alone, rtol=0.0, atol=1e-12)
    assert (got - want).abs() < 5e-5
    assert (over_all - want).abs() > 5 * (got - want).abs()  # the usual norm does not see it


@pytest.mark.parametrize("index", range(len(FIXED) + 1))
def test_forth_and_back(index):
    """Going back undoes going forth, but for the error."""
    solver = [kind(400) for kind in FIXED][index] if index < len(FIXED) else every_solver()[-1]
    x = points()
    back = solver.integrate(curved, solver.integrate(curved, x), start=1.0, end=0.0)
    bound = {EulerSolver: 1e-2, MidpointSolver: 1e-5, HeunSolver: 1e-5}.get(type(solver), 1e-8)
    assert 0 < (back - x).abs().max() < bound


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 0, 1), (2, 2, 1)], ids=str)
def test_shapes(shape):
    for solver in every_solver(1e-3):
        assert solver.integrate(curved, torch.zeros(shape)).shape == shape
        assert torch.equal(
            solver.integrate(curved, torch.ones(shape), 0.5, 0.5), torch.ones(shape)
        )


def test_state_keeps_its_precision():
    """A field in bfloat16, as under autocast: its small steps are added up in float32."""
    x = torch.ones(1, 1, dtype=torch.float32)
    slope = torch.tensor(0.1, dtype=torch.bfloat16)
    for solver in [*(kind(100) for kind in FIXED), every_solver(1e-4)[-1]]:
        got = solver.integrate(lambda x, t: slope.expand_as(x), x)
        assert got.dtype == torch.float32
        # A product in bfloat16, or a sum, would be off by 1e-3 and more.
        torch.testing.assert_close(got, x + slope.float(), rtol=0.0, atol=1e-5)


@every_fixed
def test_compiles_in_one_graph(kind):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: kind(3).integrate(curved, x, 1.0, 0.0), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(points()), kind(3).integrate(curved, points(), 1.0, 0.0))


def test_gradient_passes_through():
    rate = torch.tensor(0.3, requires_grad=True)
    for solver in every_solver()[1:]:
        end = solver.integrate(lambda x, t: rate * x, torch.ones(1, 1))
        (gradient,) = torch.autograd.grad(end.sum(), rate)
        torch.testing.assert_close(gradient, rate.detach().exp(), rtol=1e-2, atol=0.0)


def test_parts_are_compared_by_value():
    assert MidpointSolver(4) == MidpointSolver(4) != MidpointSolver(5)
    assert repr(HeunSolver(7)) == "HeunSolver(steps=7)"


@every_fixed
def test_no_step_is_refused(kind):
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        kind(0)


def test_a_method_needs_a_tableau():
    with pytest.raises(TypeError, match="abstract"):
        FixedStepSolver(3)


def test_field_shapes_are_checked():
    with pytest.raises(TypeCheckError):
        EulerSolver(1).integrate(lambda x, t: x, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("rtol, atol", [(0.0, 1e-3), (1e-3, -1.0), (math.nan, 1e-3)])
def test_adaptive_refuses_bad_tolerances(rtol, atol):
    with pytest.raises(ValueError, match="tol must be positive and finite; got"):
        AdaptiveSolver(rtol, atol)


def test_adaptive_names_a_field_that_is_not_finite():
    pytest.importorskip("torchdiffeq")
    with pytest.raises(ValueError, match=r"field must be finite and smooth from 0\.0 to 1\.0"):
        AdaptiveSolver().integrate(lambda x, t: x / 0, torch.ones(2, 1))


def test_adaptive_names_the_extra_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match=r"pip install 'calmkit\[ode\]'"):
        AdaptiveSolver()
