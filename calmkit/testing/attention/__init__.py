"""What every attention backend promises."""

from .suite import SUITE as SUITE
