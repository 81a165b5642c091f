"""The contracts of input encoders."""

from .suite import SUITE as SUITE
