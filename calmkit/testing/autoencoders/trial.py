"""An autoencoder under test."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.chunking import ChunkBatch
from calmkit.testing.trial import Trial

__all__ = ["CHUNK", "LATENT", "VOCAB", "AutoencoderTrial"]

CHUNK = 3
VOCAB = 11
# A multiple of the former, for autoencoders that give each token an equal share.
LATENT = 6


class AutoencoderTrial(Trial):
    """Builds an autoencoder from `(chunk_size, vocab_size, latent_size)` and calls it."""

    def build(self, number: int = 0) -> ChunkAutoencoder:
        """A new autoencoder; autoencoders with the same number are equal."""
        return self.built(ChunkAutoencoder, CHUNK, VOCAB, LATENT, number=number)

    def tokens(self, *batch: int, number: int = 1) -> Tensor:
        """Chunks of random tokens."""
        return torch.randint(VOCAB, (*batch, CHUNK), generator=self.generator(number))

    def latents(self, *batch: int, number: int = 2) -> Tensor:
        """Random latents."""
        return torch.randn(*batch, LATENT, generator=self.generator(number))

    def rows(self, lengths: Sequence[Sequence[int]], real: Tensor | None = None) -> ChunkBatch:
        """Packed documents of given lengths; all places are text if `real` is None."""
        tokens = self.tokens(len(lengths), sum(lengths[0]))
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        return ChunkBatch(tokens, real, tuple(map(tuple, lengths)))
