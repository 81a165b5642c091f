"""Chunk autoencoders: from K tokens to one vector and back."""

from .base import AutoencoderLoss as AutoencoderLoss
from .base import ChunkAutoencoder as ChunkAutoencoder
from .contextual import ContextualAutoencoder as ContextualAutoencoder
from .mlp import MLPAutoencoder as MLPAutoencoder
from .standardized import StandardizedAutoencoder as StandardizedAutoencoder
