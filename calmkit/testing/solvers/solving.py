"""Where a solver ends, how fast it gets there with more steps, and what that depends on."""

import math

import torch
from torch import Tensor

from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_dtype, expect_same, expect_shape, expect_unchanged
from calmkit.testing.solvers.trial import SolverTrial, turning, without_steps

__all__ = [
    "any_interval",
    "argument_is_left_alone",
    "can_be_built_and_used",
    "converges_with_a_whole_order",
    "dtype_is_kept",
    "evaluations_are_counted",
    "rows_do_not_mix",
    "time_is_told_rightly",
]

_CLOSE = 0.1


@contract()
def can_be_built_and_used(trial: SolverTrial) -> None:
    """A solver is built, and carries points of any batch to points of the same shape."""
    solver = trial.build()
    for batch in ((), (1,), (4,), (2, 3)):
        x = trial.points(*batch)
        got = trial.call(solver.integrate, turning, x)
        cause = "the path is returned instead of its end, or axes are flattened"
        expect_shape(got, x.shape, what="what integrate returns", cause=cause)


@contract()
def any_interval(trial: SolverTrial) -> None:
    """From any time to any other, forwards and back, it ends near the known solution."""
    # So many steps that a method of order 1 comes near, too.
    solver, x = trial.build(256), trial.points(20)
    for start, end in ((0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (0.5, 0.5)):
        got = trial.call(solver.integrate, turning, x, start, end)
        want = trial.solution(x, start, end)
        error = float((got - want).norm(dim=-1).max())
        expect(
            error < _CLOSE,
            seen=f"from {start} to {end} it ends up to {error:.3g} away from the solution",
            expected=f"at most {_CLOSE}",
            cause="start and end are ignored or exchanged, or steps have a fixed length",
        )


@contract(applies=without_steps)
def converges_with_a_whole_order(trial: SolverTrial) -> None:
    """Twice the steps divide the error by 2^p, p a whole number of at least one.

    If it is not down to rounding before.
    """
    x = trial.points(50)
    want = trial.solution(x)
    errors = []
    for steps in (16, 32):
        got = trial.call(trial.build(steps).integrate, turning, x)
        errors.append(float((got - want).norm()))
    if max(errors) < 1e-10 * float(want.norm()):
        return
    order = math.log2(errors[0] / max(errors[1], 1e-300)) if errors[0] > 0 else -math.inf
    expect(
        order > 0.85 and abs(order - round(order)) < 0.15,
        seen=f"errors of {errors[0]:.3g} with 16 steps and {errors[1]:.3g} with 32: "
        f"an order of {order:.2f}",
        expected="a whole order of at least 1",
        cause="slopes are taken at wrong times or places, weights do not sum to one, or the last "
        "step is missing",
    )


@contract()
def evaluations_are_counted(trial: SolverTrial) -> None:
    """`evaluations` is how often the field is evaluated; None where that depends on the field."""
    solver, calls = trial.build(), []

    def counting(x: Tensor, time: Tensor) -> Tensor:
        calls.append(time)
        return turning(x, time)

    trial.call(solver.integrate, counting, trial.points(4))
    told = solver.evaluations
    expect(
        told is None or told == len(calls),
        seen=f"evaluations = {told}; the field was evaluated {len(calls)} times",
        expected="the same number",
        cause="stages of a step, or a first or last evaluation, are not counted",
    )


@contract()
def time_is_told_rightly(trial: SolverTrial) -> None:
    """The field is asked at scalar times between start and end, in the dtype of the points."""
    solver, x = trial.build(), trial.points(4).float()
    times: list[Tensor] = []

    def listening(x: Tensor, time: Tensor) -> Tensor:
        times.append(torch.as_tensor(time))
        return turning(x, torch.as_tensor(time).to(x.dtype))

    trial.call(solver.integrate, listening, x, 0.25, 0.75)
    for time in times:
        expect(
            time.ndim == 0 and time.dtype == x.dtype,
            seen=f"a time of shape {tuple(time.shape)} and {time.dtype}",
            expected=f"a scalar in {x.dtype}",
            cause="the time is made without dtype=, or expanded to the batch",
        )
        expect(
            0.25 - 1e-6 <= float(time) <= 0.75 + 1e-6,
            seen=f"the field was asked at time {float(time):.4g}",
            expected="times from 0.25 to 0.75",
            cause="times run from 0 to 1 whatever start and end are, or beyond the end",
        )


@contract()
def rows_do_not_mix(trial: SolverTrial) -> None:
    """A point's path does not depend on the others, but for a tolerance shared by all."""
    solver, x = trial.build(), trial.points(4)
    other = x.clone()
    other[2] += 1
    want, got = (trial.call(solver.integrate, turning, points)[[0, 1, 3]] for points in (x, other))
    cause = "an operation along the batch axis, such as one norm for all points"
    than = "before point 2 was changed"
    expect_same(got, want, what="the other points", than=than, cause=cause, rtol=1e-3, atol=1e-3)


@contract()
def dtype_is_kept(trial: SolverTrial) -> None:
    """Points keep their dtype, whatever that of the field's values."""
    solver = trial.build()
    for dtype, field_dtype in (
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float32, torch.bfloat16),
    ):
        x = trial.points(4).to(dtype)
        got = trial.call(
            solver.integrate,
            lambda x, t, low=field_dtype: turning(x, t.to(x.dtype)).to(low),
            x,
        )
        what = f"the end of points of {dtype}, by a field of {field_dtype},"
        cause = "slopes are added up in their own dtype, or a time in float64 promotes the points"
        expect_dtype(got, dtype, what=what, cause=cause)


@contract()
def argument_is_left_alone(trial: SolverTrial) -> None:
    """The points it starts from are read, never written."""
    solver, x = trial.build(), trial.points(4)
    before = x.clone()
    trial.call(solver.integrate, turning, x)
    expect_unchanged([before], [x], names="x")
