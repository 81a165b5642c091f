"""An autoencoder whose behaviour under noise is known: a latent is its tokens, rounded."""

import torch

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.distributions import DiagonalGaussian


class RoundingAutoencoder(ChunkAutoencoder):
    """Token x becomes the latent N(x, std^2), and a latent the nearest token."""

    def __init__(self, chunk_size, vocab_size, *, std=0.0):
        super().__init__(chunk_size, vocab_size, chunk_size)
        self.std = std

    def encode(self, tokens):
        mean = tokens.to(torch.get_default_dtype())
        return DiagonalGaussian(mean, torch.full_like(mean, self.std))

    def decode(self, latents):
        return -(latents[..., None] - torch.arange(self.vocab_size)).square()

    def loss(self, tokens, generator=None):
        raise NotImplementedError


def random_tokens(*shape, vocab=5, seed=0):
    return torch.randint(vocab, shape, generator=torch.Generator().manual_seed(seed))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
