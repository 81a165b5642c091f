"""Puts an autoencoder into the wrappers that a config names."""

from typing import Literal

from .base import ChunkAutoencoder
from .normalized import RMSNormalizedAutoencoder, SphericalAutoencoder
from .standardized import StandardizedAutoencoder

__all__ = ["wrapped"]

_LENGTHS = {"rms": RMSNormalizedAutoencoder, "sphere": SphericalAutoencoder}


def wrapped(
    autoencoder: ChunkAutoencoder,
    *,
    standardize: bool,
    normalize: Literal["none", "rms", "sphere"],
) -> ChunkAutoencoder:
    """An autoencoder in wrappers that are not fitted; the autoencoder itself if there are none.

    Args:
        autoencoder: The autoencoder.
        standardize: Whether to scale each dimension of the latents to mean 0 and variance 1.
        normalize: Whether to divide latents by their root mean square, or put them on a sphere.
    """
    if standardize:
        autoencoder = StandardizedAutoencoder(autoencoder)
    return _LENGTHS[normalize](autoencoder) if normalize in _LENGTHS else autoencoder
