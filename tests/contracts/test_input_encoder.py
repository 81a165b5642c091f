"""The suite of input encoders over all exported ones."""

from exported import exported_finals

from calmkit import models
from calmkit.autoencoders import ContextualAutoencoder, MLPAutoencoder
from calmkit.models import (
    ChunkEmbedding,
    InputEncoder,
    LatentEmbedding,
    NoisyInput,
    TokenAndLatentEmbedding,
)
from calmkit.testing import parametrize_contracts


def mlp(vocab, chunk):
    return MLPAutoencoder(chunk, vocab, 5, width=8)


def contextual(vocab, chunk):
    return ContextualAutoencoder(chunk, vocab, 5, width=8, depth=1, heads=2)


def reading(kind, autoencoder):
    return lambda vocab, chunk, hidden: kind(autoencoder(vocab, chunk), hidden)


def noisy(make):
    return lambda *sizes: NoisyInput(make(*sizes), size=0.5, warmup_steps=2)


ENCODERS = {
    "ChunkEmbedding": ChunkEmbedding,
    "LatentEmbedding": reading(LatentEmbedding, mlp),
    "LatentEmbedding of a contextual one": reading(LatentEmbedding, contextual),
    "TokenAndLatentEmbedding": reading(TokenAndLatentEmbedding, mlp),
    "NoisyInput of tokens": noisy(ChunkEmbedding),
    "NoisyInput of both": noisy(reading(TokenAndLatentEmbedding, mlp)),
}


def test_every_exported_input_encoder_is_here():
    covered = {type(make(11, 3, 8)).__name__ for make in ENCODERS.values()}
    assert covered == exported_finals(models, InputEncoder)


@parametrize_contracts("input_encoder", ENCODERS, profile="quick")
def test_contract(check):
    check()
