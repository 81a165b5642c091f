"""The contracts of generative heads."""

from .suite import SUITE as SUITE
