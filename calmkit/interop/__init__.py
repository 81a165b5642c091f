"""Reading and writing checkpoints in the published format."""

from .autoencoder import load_published_autoencoder as load_published_autoencoder
from .calm import load_published_calm as load_published_calm
from .errors import CheckpointFormatError as CheckpointFormatError
from .errors import CheckpointNotFoundError as CheckpointNotFoundError
from .errors import CheckpointWarning as CheckpointWarning
from .saving import save_published as save_published
from .time_embedding import PublishedTimeEmbedding as PublishedTimeEmbedding

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .writing import check_new as check_new
from .writing import new_folder as new_folder
