"""The suite of solvers."""

from calmkit.testing.solvers import solving
from calmkit.testing.solvers.trial import SolverTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="solver",
    trial=SolverTrial,
    contracts=contracts_of(solving),
    docs="docs/testing.md#solvers",
)
