"""The contracts of scoring rules."""

from .suite import SUITE as SUITE
