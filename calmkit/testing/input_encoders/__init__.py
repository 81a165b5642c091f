"""What every input encoder promises."""

from .suite import SUITE as SUITE
