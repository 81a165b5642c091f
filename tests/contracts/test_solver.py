"""The suite of solvers over all exported ones."""

from exported import exported_finals

from calmkit import heads
from calmkit.heads import (
    AdaptiveSolver,
    EulerSolver,
    HeunSolver,
    MidpointSolver,
    RungeKutta4Solver,
    Solver,
)
from calmkit.testing import parametrize_contracts

SOLVERS = (AdaptiveSolver, EulerSolver, HeunSolver, MidpointSolver, RungeKutta4Solver)


def test_every_exported_solver_is_here():
    assert {solver.__name__ for solver in SOLVERS} == exported_finals(heads, Solver)


@parametrize_contracts("solver", {solver.__name__: solver for solver in SOLVERS}, profile="quick")
def test_contract(check):
    check()
