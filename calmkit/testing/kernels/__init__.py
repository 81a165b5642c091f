"""The contracts of kernels."""

from .suite import SUITE as SUITE
