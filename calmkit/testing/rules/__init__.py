"""What every scoring rule promises."""

from .suite import SUITE as SUITE
