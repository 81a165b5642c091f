"""The suite of scoring rules."""

from calmkit.testing.rules import numbers, propriety, shapes
from calmkit.testing.rules.trial import RuleTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="rule",
    trial=RuleTrial,
    contracts=contracts_of(shapes, numbers, propriety),
    docs="docs/testing.md#scoring-rules",
)
