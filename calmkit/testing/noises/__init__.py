"""The contracts of noise distributions."""

from .suite import SUITE as SUITE
