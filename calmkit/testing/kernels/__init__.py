"""What every kernel promises."""

from .suite import SUITE as SUITE
