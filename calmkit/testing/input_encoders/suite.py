"""The suite of input encoders."""

from calmkit.testing.input_encoders import reading, trained
from calmkit.testing.input_encoders.trial import EncoderTrial
from calmkit.testing.suite import Suite, contracts_of

__all__ = ["SUITE"]

SUITE = Suite(
    kind="input_encoder",
    trial=EncoderTrial,
    contracts=contracts_of(reading, trained),
    docs="docs/testing.md#input-encoders",
)
