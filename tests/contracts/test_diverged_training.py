"""Whatever part a training has, one that is no longer finite ends it in the same named way."""

import math
from functools import partial

import pytest
import torch
from autoencoder_instances import AUTOENCODERS
from backbone_instances import BACKBONES
from head_instances import HEADS, energy_head
from rule_instances import RULES

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding, TokenLM
from calmkit.training import Means, TrainingDiverged, TrainingSettings, fit

CHUNK, VOCAB, HIDDEN, LATENT = 3, 11, 8, 5


def calm(head, backbone=None):
    return CALM(
        autoencoder=MLPAutoencoder(CHUNK, VOCAB, LATENT, width=8),
        input_encoder=ChunkEmbedding(VOCAB, CHUNK, HIDDEN),
        backbone=backbone or TransformerBackbone(HIDDEN, depth=1, heads=2),
        head=head,
    )


def energy_with(rule):
    return calm(EnergyHead(HIDDEN, LATENT, width=8, depth=1, num_samples=8, rule=rule))


MODELS = {
    **{
        kind.__name__: lambda make=make: calm(make(HIDDEN, LATENT))
        for kind, make in HEADS.items()
    },
    **{
        kind.__name__: lambda rule=rules[0]: energy_with(rule)
        for kind, rules in RULES.items()
    },
    **{
        name: lambda make=make: calm(energy_head(HIDDEN, LATENT), make())
        for name, make in BACKBONES.items()
    },
    "TokenLM": lambda: TokenLM(VOCAB, backbone=TransformerBackbone(HIDDEN, depth=1, heads=2)),
}  # fmt: skip


def batch_at(chunk, step):
    tokens = torch.randint(VOCAB, (4, 4, chunk), generator=torch.Generator().manual_seed(step))
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((4,),) * 4)


def model_loss(model, batch, generator):
    loss = model.loss(batch, generator)
    return Means({"loss": loss.total}, loss.counted.sum())


def reconstruction(autoencoder, batch, generator):
    loss = autoencoder.loss_rows(batch, generator)
    return {"loss": loss.total.mean(), "reconstruction": loss.reconstruction.mean()}


def fails(module, objective, *, rate=1e-3, steps=30):
    """The refusal of a training; no gradient is left behind."""
    chunk = getattr(module, "chunk_size", CHUNK)
    with pytest.raises(TrainingDiverged) as caught:
        fit(
            module, objective, partial(batch_at, chunk), seed=0, loggers=(),
            settings=TrainingSettings(steps, warmup_steps=0, clip_norm=math.inf),
            optimizer=partial(torch.optim.SGD, lr=rate),
        )  # fmt: skip
    assert all(p.grad is None for p in module.parameters())
    return caught.value


@pytest.mark.parametrize("name", MODELS)
def test_a_weight_of_nan_is_named_in_the_first_step(name):
    model = MODELS[name]()
    last = [key for key, p in model.named_parameters() if p.requires_grad][-1]
    with torch.no_grad():
        model.get_parameter(last).fill_(math.nan)
    error = fails(model, model_loss)
    assert (error.step, error.part) == (0, "loss")
    assert "in step 0 (from 0): 'loss' " in str(error)
    assert f"; {last!r} is not finite in them already" in str(error)


@pytest.mark.parametrize("name", MODELS)
def test_an_exploding_rate_is_told_with_its_step(name):
    model = MODELS[name]()
    error = fails(model, model_loss, rate=1e300)
    assert 1 <= error.step <= 3
    assert error.part == "loss" or error.part in dict(model.named_parameters())
    assert f"step {error.step} (from 0)" in str(error) and "lower learning rate" in str(error)


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("rate", [None, 1e300])
def test_autoencoders_too(name, rate):
    autoencoder = AUTOENCODERS[name]()
    if rate is None:
        with torch.no_grad():
            next(p for p in autoencoder.parameters() if p.requires_grad).fill_(math.nan)
    error = fails(autoencoder, reconstruction, rate=rate or 1e-3)
    assert error.step == 0 if rate is None else 1 <= error.step <= 3
    assert error.part in {"loss", "reconstruction", *dict(autoencoder.named_parameters())}
