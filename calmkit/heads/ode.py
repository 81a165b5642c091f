r"""Solvers for x'(t) = f(x, t), which can be used without a head.

An explicit Runge-Kutta method with s stages moves x over a step of h by

    k_i = f(x + h sum_{j<i} a_ij k_j,  t + c_i h),   c_i = sum_j a_ij,   i = 1, ..., s,
    x <- x + h sum_i b_i k_i.

It is defined by its *tableau*, the rows a_1, ..., a_s followed by b. The table lists the order p
(for smooth f the error after n = 1/h equal steps is O(h^p)) and the s evaluations of f per step:

| solver | a_2 ... a_s | b | p | s |
|---|---|---|---|---|
| `EulerSolver` | | 1 | 1 | 1 |
| `MidpointSolver` | 1/2 | 0 1 | 2 | 2 |
| `HeunSolver` | 1 | 1/2 1/2 | 2 | 2 |
| `RungeKutta4Solver` | 1/2; 0 1/2; 0 0 1 | 1/6 1/3 1/3 1/6 | 4 | 4 |

`AdaptiveSolver` chooses its steps so that an estimate of the error stays within a tolerance.

Source: Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", chapter II; for
the adaptive one Dormand and Prince, "A family of embedded Runge-Kutta formulae", 1980, section 3
(RK5(4)7M).
"""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.bounds import check_at_least, check_positive
from calmkit.extras import require
from calmkit.typing import typed

__all__ = [
    "AdaptiveSolver",
    "EulerSolver",
    "Field",
    "FixedStepSolver",
    "HeunSolver",
    "MidpointSolver",
    "RungeKutta4Solver",
    "Solver",
]

Field = Callable[[Tensor, Tensor], Tensor]
"""The velocity f(x, t), in the shape of x; t is a scalar tensor in the dtype of x."""


@dataclass(frozen=True)
class Solver(abc.ABC):
    """Integrates a field from one time to another; holds settings, no tensors."""

    @property
    @abc.abstractmethod
    def evaluations(self) -> int | None:
        """Evaluations of the field per call of `integrate`; None if they depend on the field."""

    @abc.abstractmethod
    def integrate(
        self,
        field: Field,
        x: Float[Tensor, "*batch latent"],
        start: float = 0.0,
        end: float = 1.0,
    ) -> Float[Tensor, "*batch latent"]:
        """The solution at time `end` that passes through x at time `start`, in the dtype of x.

        Args:
            field: Velocity at (x, t).
            x: Initial value.
            start: Initial time.
            end: Final time; may be before `start`.
        """


@dataclass(frozen=True)
class FixedStepSolver(Solver):
    """A Runge-Kutta method with equal steps; a concrete class defines its tableau.

    Attributes:
        steps: Number of steps.
    """

    steps: int = 10

    def __post_init__(self) -> None:
        """Refuse fewer than one step."""
        check_at_least(1, steps=self.steps)

    @property
    @abc.abstractmethod
    def tableau(self) -> tuple[tuple[float, ...], ...]:
        """Rows a_1 = (), a_2, ..., a_s, then the weights b."""

    @property
    def evaluations(self) -> int:
        """One per stage and step."""
        return self.steps * (len(self.tableau) - 1)

    @typed
    def integrate(
        self,
        field: Field,
        x: Float[Tensor, "*batch latent"],
        start: float = 0.0,
        end: float = 1.0,
    ) -> Float[Tensor, "*batch latent"]:
        """Take `steps` steps of `(end - start) / steps`; see `Solver.integrate`."""
        *stages, weights = self.tableau
        h = (end - start) / self.steps
        for step in range(self.steps):
            slopes: list[Tensor] = []
            for row in stages:
                part = (step + sum(row)) / self.steps
                # In this form the last time is exactly `end`.
                time = x.new_full((), start * (1 - part) + end * part)
                # Autocast may return bfloat16 slopes: accumulate x in its own precision.
                slopes.append(field(_moved(x, row, slopes, h), time).to(x.dtype))
            x = _moved(x, weights, slopes, h)
        return x


@dataclass(frozen=True)
class EulerSolver(FixedStepSolver):
    """x <- x + h f(x, t): order 1, one evaluation per step."""

    tableau = ((), (1.0,))


@dataclass(frozen=True)
class MidpointSolver(FixedStepSolver):
    """x <- x + h f(x + h/2 f(x, t), t + h/2): order 2, two evaluations a step."""

    tableau = ((), (0.5,), (0.0, 1.0))


@dataclass(frozen=True)
class HeunSolver(FixedStepSolver):
    """The mean of the slopes at both ends of an Euler step: order 2, two evaluations per step."""

    tableau = ((), (1.0,), (0.5, 0.5))


@dataclass(frozen=True)
class RungeKutta4Solver(FixedStepSolver):
    """The classic method of order 4, four evaluations per step."""

    tableau = ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6))


@dataclass(frozen=True)
class AdaptiveSolver(Solver):
    """Dormand and Prince's pair of orders 5 and 4 with adaptive steps.

    All rows (all axes but the last) share their steps. A step is accepted if the estimated error
    of *every* row, the root mean square over its dimensions, is within `atol + rtol |x|`. The
    usual norm over all numbers would allow one hard row among a thousand easy ones 30 times this
    error. The result of a row depends on the other rows, within the tolerance.

    The steps depend on the data, so this solver cannot be part of one compiled graph. It needs the
    library torchdiffeq.

    Attributes:
        rtol: Relative tolerance of one step.
        atol: Absolute tolerance of one step, in the unit of x.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    evaluations = None  # they depend on the field

    def __post_init__(self) -> None:
        """Refuse tolerances that are not positive, and a missing library."""
        check_positive(rtol=self.rtol, atol=self.atol)
        require("torchdiffeq", "AdaptiveSolver")

    @typed
    def integrate(
        self,
        field: Field,
        x: Float[Tensor, "*batch latent"],
        start: float = 0.0,
        end: float = 1.0,
    ) -> Float[Tensor, "*batch latent"]:
        """Take as many steps as the tolerance requires; see `Solver.integrate`.

        Raises:
            ValueError: If no step is small enough, for example if the field is not finite.
        """
        from torchdiffeq import odeint  # slow to import

        if start == end or x.numel() == 0:
            return x
        times = torch.tensor([start, end], dtype=torch.float64, device=x.device)
        options = {
            "norm": _worst_row,
            # The library's defaults would evaluate the field outside [start, end].
            "first_step": abs(end - start) / 20,
            "step_t": times[1:],
        }
        try:
            path = odeint(
                lambda time, x: field(x, time).to(x.dtype),
                x,
                times,
                rtol=self.rtol,
                atol=self.atol,
                method="dopri5",
                options=options,
            )
        except AssertionError as error:
            raise ValueError(
                f"field must be finite and smooth from {start} to {end}; no step there is within "
                f"rtol = {self.rtol} and atol = {self.atol} ({error})."
            ) from error
        return path[-1]


def _moved(x: Tensor, row: Sequence[float], slopes: Sequence[Tensor], h: float) -> Tensor:
    """`x + h sum_j row_j slopes_j`."""
    for weight, slope in zip(row, slopes, strict=True):
        if weight != 0:
            x = x + (h * weight) * slope
    return x


def _worst_row(error: Tensor) -> Tensor:
    return error.square().mean(dim=-1).amax().sqrt()
