"""Token ids of any signed integer dtype are read as those of int64."""

import pytest
import torch
from calm_models import HIDDEN, LATENT, VOCAB, energy_head, tiny

from calmkit.autoencoders import ContextualAutoencoder, MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.metrics import expected_brier, softmax_brier
from calmkit.models import ChunkEmbedding, LatentEmbedding, TokenAndLatentEmbedding, TokenLM

TOKENS = torch.randint(VOCAB, (2, 5, 3), generator=torch.Generator().manual_seed(0))
REAL = torch.ones_like(TOKENS, dtype=torch.bool)


def batch(tokens):
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((2, 3), (5,)))


AUTOENCODERS = [
    kind(3, VOCAB, LATENT, width=8) for kind in (MLPAutoencoder, ContextualAutoencoder)
]
for autoencoder in AUTOENCODERS:
    autoencoder.eval()
SOFTMAX = TokenLM(VOCAB, backbone=TransformerBackbone(HIDDEN, depth=1, heads=2))
LAW = torch.rand(2, 5, VOCAB).softmax(dim=-1)
READERS = {
    **{f"{type(a).__name__}.encode": lambda x, a=a: a.encode(x).mean for a in AUTOENCODERS},
    **{f"{type(a).__name__}.loss": lambda x, a=a: a.loss(x).total for a in AUTOENCODERS},
    **{
        f"{type(a).__name__} rows": lambda x, a=a: a.loss_rows(batch(x)).total
        for a in AUTOENCODERS
    },
    **{
        type(one).__name__: lambda x, one=one: one(x, REAL)
        for one in (
            ChunkEmbedding(VOCAB, 3, HIDDEN),
            LatentEmbedding(AUTOENCODERS[0], HIDDEN),
            TokenAndLatentEmbedding(AUTOENCODERS[0], HIDDEN),
        )
    },
    "CALM.loss": lambda x: (
        tiny(build_head=energy_head).loss(batch(x), torch.Generator().manual_seed(0)).total
    ),
    "TokenLM.loss": lambda x: SOFTMAX.loss(batch(x[..., :1])).total,
    "softmax_brier": lambda x: softmax_brier(LAW.log(), x[..., 0]),
    "expected_brier": lambda x: expected_brier(LAW[0, 0], x),
}


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", READERS)
def test_every_reader_of_tokens(name, dtype):
    got, want = (READERS[name](TOKENS.to(kind)) for kind in (dtype, torch.long))
    torch.testing.assert_close(got, want, rtol=0, atol=0)
