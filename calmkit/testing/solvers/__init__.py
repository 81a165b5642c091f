"""What every solver of differential equations promises."""

from .suite import SUITE as SUITE
