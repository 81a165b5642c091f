"""The contracts of chunk autoencoders."""

from .suite import SUITE as SUITE
