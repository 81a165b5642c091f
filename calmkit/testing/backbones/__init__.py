"""The contracts of backbones."""

from .suite import SUITE as SUITE
