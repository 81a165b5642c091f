"""A tiny CALM, with a head that is a fixed linear map of the condition."""

import torch
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.heads import EnergyHead, Head
from calmkit.models import CALM, ChunkEmbedding

VOCAB = 7
HIDDEN, LATENT = 8, 6


class LinearHead(Head):
    """Every sample is the same; the loss is the squared distance to the target's mean."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.map = nn.Linear(cond_size, latent_size)

    @property
    def evaluations_per_sample(self):
        return 1

    def loss(self, cond, target, generator=None):
        return (self.map(cond) - target.mean).square().sum(dim=-1)

    def sample(self, cond, num_samples, generator=None):
        return 3 * self.map(cond).expand(num_samples, *cond.shape[:-1], self.latent_size)


def tiny(chunk_size=3, *, build_head=LinearHead, seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = {
            "autoencoder": MLPAutoencoder(chunk_size, VOCAB, LATENT, width=8),
            "input_encoder": ChunkEmbedding(VOCAB, chunk_size, HIDDEN),
            "backbone": TransformerBackbone(HIDDEN, depth=2, heads=2),
            "head": build_head(HIDDEN, LATENT),
        }
        return CALM(**{**parts, **changes})


def energy_head(cond_size, latent_size):
    return EnergyHead(cond_size, latent_size, width=8, depth=1, noise_size=3, num_samples=2)
