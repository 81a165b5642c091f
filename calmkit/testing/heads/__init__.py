"""What every generative head promises."""

from .suite import SUITE as SUITE
