"""Whole models, assembled from parts."""

from .calm import CALM as CALM
from .calm import CALMLoss as CALMLoss
from .embedding import ChunkEmbedding as ChunkEmbedding
from .generation import Generation as Generation
