"""The suite of solvers."""

from calmkit.testing.solvers import solving
from calmkit.testing.solvers.trial import SolverTrial
from calmkit.testing.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    kind="solver",
    trial=SolverTrial,
    contracts=(
        solving.can_be_built_and_used,
        solving.any_interval,
        solving.converges_with_a_whole_order,
        solving.evaluations_are_counted,
        solving.time_is_told_rightly,
        solving.rows_do_not_mix,
        solving.dtype_is_kept,
        solving.argument_is_left_alone,
    ),
    docs="docs/testing.md#solvers",
)
