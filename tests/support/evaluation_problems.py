"""Small models whose draws are known, and rows of text to evaluate them on."""

import torch
from torch import nn

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings
from calmkit.heads import Head
from calmkit.models import CALM, ChunkEmbedding

VOCAB, HIDDEN, LATENT = 4, 8, 6


class FixedSpread(Head):
    """Sample n of every position is a linear map of the condition, shifted by n: no chance."""

    def __init__(self):
        super().__init__(HIDDEN, LATENT)
        self.map = nn.Linear(HIDDEN, LATENT)

    @property
    def evaluations_per_sample(self):
        return 1

    def loss(self, cond, target, generator=None):
        raise NotImplementedError

    def sample(self, cond, num_samples, generator=None):
        number = torch.arange(num_samples).view(-1, *[1] * cond.ndim)
        return 3 * self.map(cond) + 2.0 * (number * torch.arange(1, LATENT + 1)).sin()


def model_of(chunk_size, head=None):
    with torch.random.fork_rng():
        torch.manual_seed(chunk_size)
        return CALM(
            autoencoder=MLPAutoencoder(chunk_size, VOCAB, LATENT, width=8),
            input_encoder=ChunkEmbedding(VOCAB, chunk_size, HIDDEN),
            backbone=TransformerBackbone(HIDDEN, depth=2, heads=2),
            head=FixedSpread() if head is None else head,
        )


def rows_of(chunk_size, tokens_in_row, document):
    """Rows of random text; row b holds `tokens_in_row[b]` tokens, then empty places."""
    count = len(tokens_in_row)
    positions = max(-(-size // chunk_size) for size in tokens_in_row)
    positions = max(positions, 5)
    shape = (count, positions, chunk_size)
    tokens = torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(chunk_size))
    places = torch.arange(positions * chunk_size).view(1, positions, chunk_size)
    real = places < torch.tensor(tokens_in_row).view(-1, 1, 1)
    batch = ChunkBatch(tokens, real, ((positions,),) * count)
    return EvaluationRows(batch, torch.tensor(document))


def settings(**changes):
    return EvaluationSettings(
        **{"rows": 2, "draws": 3, "min_context": 2, "bootstrap": 200, **changes}
    )
