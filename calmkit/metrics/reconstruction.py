"""Reconstruction accuracy of an autoencoder."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.typing import typed

__all__ = ["reconstructed_tokens"]


@typed
@torch.no_grad()
def reconstructed_tokens(
    autoencoder: ChunkAutoencoder, tokens: Int[Tensor, "*batch chunk"]
) -> Bool[Tensor, "*batch chunk"]:
    """Which tokens are recovered from the posterior's mean, decoded greedily and without noise.

    Args:
        autoencoder: The autoencoder; put it in evaluation mode first.
        tokens: Chunks of held-out text.
    """
    return autoencoder.decode_tokens(autoencoder.encode(tokens.long()).mean) == tokens
