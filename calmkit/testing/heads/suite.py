"""The suite of heads."""

from calmkit.testing.heads import (
    density,
    gradients,
    learning,
    positions,
    precision,
    randomness,
    refusals,
    shapes,
    states,
)
from calmkit.testing.heads.trial import HeadTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="head",
    trial=HeadTrial,
    contracts=contracts_of(
        shapes, gradients, randomness, positions, precision, states, refusals, density, learning
    ),
    docs="docs/testing.md#heads",
)
