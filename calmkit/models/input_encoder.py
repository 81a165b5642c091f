"""The contract of an input encoder: what the backbone reads of each chunk.

    chunk of K tokens, and which of them are real  ->  one vector of the backbone

A generated chunk is read back the same way. No chunk is read together with others, so that a text
can go on chunk by chunk.
"""

import abc

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.recording import Recorded

__all__ = ["InputEncoder"]


class InputEncoder(nn.Module, Recorded, abc.ABC):
    """Turns chunks of tokens into vectors.

    Attributes:
        chunk_size: K, tokens in a chunk.
        vocab_size: Number of token ids.
        hidden_size: Features of the vector.
    """

    chunk_size: int
    vocab_size: int
    hidden_size: int

    @property
    def autoencoder(self) -> ChunkAutoencoder | None:
        """The autoencoder whose latents it reads, which must be the model's own; None if none."""
        return None

    @abc.abstractmethod
    def forward(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Encode chunks.

        Args:
            tokens: Token ids.
            real: False at places that hold no text; their ids do not matter.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
