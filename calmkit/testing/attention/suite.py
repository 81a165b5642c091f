"""The suite of attention backends."""

from calmkit.testing.attention import formula, refusals, visibility
from calmkit.testing.attention.trial import AttentionTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="attention",
    trial=AttentionTrial,
    contracts=contracts_of(formula, visibility, refusals),
    docs="docs/testing.md#attention-backends",
)
