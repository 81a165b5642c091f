"""The suite of backbones."""

from calmkit.testing.backbones import caching, numbers, sequences
from calmkit.testing.backbones.trial import BackboneTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="backbone",
    trial=BackboneTrial,
    contracts=contracts_of(sequences, caching, numbers),
    docs="docs/testing.md#backbones",
)
