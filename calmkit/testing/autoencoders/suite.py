"""The suite of autoencoders."""

from calmkit.testing.autoencoders import coding, learning
from calmkit.testing.autoencoders.trial import AutoencoderTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="autoencoder",
    trial=AutoencoderTrial,
    contracts=contracts_of(coding, learning),
    docs="docs/testing.md#autoencoders",
)
