"""The contracts of attention backends."""

from .suite import SUITE as SUITE
