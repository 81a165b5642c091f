"""The contracts of solvers of differential equations."""

from .suite import SUITE as SUITE
