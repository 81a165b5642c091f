"""Chunk autoencoders: from K tokens to one vector and back."""

from .base import AutoencoderLoss as AutoencoderLoss
from .base import ChunkAutoencoder as ChunkAutoencoder
from .contextual import ContextualAutoencoder as ContextualAutoencoder
from .mlp import MLPAutoencoder as MLPAutoencoder
from .normalized import RMSNormalizedAutoencoder as RMSNormalizedAutoencoder
from .normalized import SphericalAutoencoder as SphericalAutoencoder
from .sparse import SparseAutoencoder as SparseAutoencoder
from .standardized import StandardizedAutoencoder as StandardizedAutoencoder
from .tokenwise import TokenwiseAutoencoder as TokenwiseAutoencoder

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .wrapped import WrappedAutoencoder as WrappedAutoencoder
from .wrapping import wrapped as wrapped
