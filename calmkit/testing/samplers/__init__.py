"""What every sampler of chunks promises."""

from .suite import SUITE as SUITE
