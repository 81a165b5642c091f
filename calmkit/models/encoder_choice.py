"""Builds the input encoder that a config names."""

from typing import Literal

from calmkit.autoencoders import ChunkAutoencoder

from .embedding import ChunkEmbedding
from .input_encoder import InputEncoder
from .latent_embedding import LatentEmbedding, TokenAndLatentEmbedding
from .noisy_input import NoisyInput

__all__ = ["encoder_of"]


def encoder_of(
    read: Literal["tokens", "latents", "both"],
    autoencoder: ChunkAutoencoder,
    hidden_size: int,
    *,
    noise: float,
    warmup_steps: int,
) -> InputEncoder:
    """An input encoder for a model.

    Args:
        read: What it reads of a chunk.
        autoencoder: The model's own.
        hidden_size: Features of the vector.
        noise: Largest noise in training; 0 is none.
        warmup_steps: Training steps over which the noise grows from 0.
    """
    if read == "latents":
        encoder = LatentEmbedding(autoencoder, hidden_size)
    elif read == "both":
        encoder = TokenAndLatentEmbedding(autoencoder, hidden_size)
    else:
        sizes = autoencoder.vocab_size, autoencoder.chunk_size
        encoder = ChunkEmbedding(*sizes, hidden_size)
    return NoisyInput(encoder, size=noise, warmup_steps=warmup_steps) if noise else encoder
