"""The chunk grid: how token sequences are laid out as chunks of K tokens."""

from .batch import ChunkBatch as ChunkBatch
from .grid import chunk_prompts as chunk_prompts
from .grid import chunk_tokens as chunk_tokens
from .pairs import aligned_loss_mask as aligned_loss_mask
from .pairs import chunk_pair as chunk_pair

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .grid import check_tokens as check_tokens
