"""The contracts of samplers."""

from .suite import SUITE as SUITE
