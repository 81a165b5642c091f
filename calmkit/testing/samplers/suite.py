"""The suite of samplers."""

from calmkit.testing.samplers import choices, laws
from calmkit.testing.samplers.trial import SamplerTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="sampler",
    trial=SamplerTrial,
    contracts=contracts_of(choices, laws),
    docs="docs/testing.md#samplers",
)
