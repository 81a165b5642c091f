"""The suite of noises."""

from calmkit.testing.noises import distribution, drawing
from calmkit.testing.noises.trial import NoiseTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="noise",
    trial=NoiseTrial,
    contracts=contracts_of(drawing, distribution),
    docs="docs/testing.md#noises",
)
