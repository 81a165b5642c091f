"""What every chunk autoencoder promises."""

from .suite import SUITE as SUITE
