"""The suite of kernels."""

from calmkit.testing.kernels import definiteness, distances
from calmkit.testing.kernels.trial import KernelTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="kernel",
    trial=KernelTrial,
    contracts=contracts_of(distances, definiteness),
    docs="docs/testing.md#kernels",
)
