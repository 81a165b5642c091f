"""The contract of an input encoder, which provides the backbone's input for each chunk.

    chunk of K tokens, with a mask of real tokens  ->  one vector of the backbone

A generated chunk is read back in the same way. Each chunk is encoded alone, so that a text can be
continued chunk by chunk.
"""

import abc
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.recording import Recorded

__all__ = ["InputEncoder", "unchanged"]


class InputEncoder(nn.Module, Recorded, abc.ABC):
    """Turns chunks of tokens into vectors.

    Attributes:
        chunk_size: K, tokens in a chunk.
        vocab_size: Number of token ids.
        hidden_size: Features of the vector.
    """

    extra_repr = Recorded.extra_repr

    chunk_size: int
    vocab_size: int
    hidden_size: int

    @property
    def autoencoder(self) -> ChunkAutoencoder | None:
        """The autoencoder whose latents are read, which must be the model's own; or None."""
        return None

    @abc.abstractmethod
    def forward(
        self, tokens: Int[Tensor, "*batch chunk"], real: Bool[Tensor, "*batch chunk"]
    ) -> Float[Tensor, "*batch hidden"]:
        """Encode chunks.

        Args:
            tokens: Token ids.
            real: False at places without text; their ids are ignored.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """

    def training_vectors(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch hidden"]:
        """The vectors that the loss of a model reads; by default those of `forward`.

        In evaluation mode they are always those of `forward`.

        Args:
            tokens: Token ids.
            real: False at places without text; their ids are ignored.
            generator: Source of randomness; torch's global one if None.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        return self(tokens, real)

    def perturbed(
        self,
        tokens: Int[Tensor, "*batch chunk"],
        real: Bool[Tensor, "*batch chunk"],
        perturb: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "*batch hidden"]:
        """Encode chunks with a change of the features that are read; see `NoisyInput`.

        By default the vectors are changed. An encoder that reads token embeddings or latents
        changes these instead.

        Args:
            tokens: Token ids.
            real: False at places without text; their ids are ignored.
            perturb: Maps features `*batch ... features` to features of the same shape.

        Raises:
            ValueError: If the chunks do not have `chunk_size` tokens.
        """
        return perturb(self(tokens, real))


def unchanged(features: Tensor) -> Tensor:
    """The identity, for `InputEncoder.perturbed`."""
    return features
