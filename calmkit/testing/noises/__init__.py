"""What every law of noise promises."""

from .suite import SUITE as SUITE
