"""What every backbone promises."""

from .suite import SUITE as SUITE
