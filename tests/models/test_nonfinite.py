"""A model whose numbers are not finite writes nothing, and says which part it is."""

import pytest
import torch
from calm_models import HIDDEN, VOCAB, energy_head, tiny

from calmkit.autoencoders import ContextualAutoencoder, MLPAutoencoder, StandardizedAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate, evaluate_softmax
from calmkit.finite import NonFiniteError
from calmkit.models import TokenLM, rank
from calmkit.sampling import (
    BatchTemperature,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    SoftmaxSampler,
)
from calmkit.scoring import EnergyScore

PARTS = {
    "states of the backbone": ["input_encoder.mlp.2.weight", "backbone.norm.weight"],
    "latents of the head": ["head"],
    "logits of the autoencoder": ["autoencoder.decoder_norm.weight"],
}
SAMPLERS = [
    PlainSampler(),
    BatchTemperature(0.5, 4),
    BatchTemperature(0.5, 64),
    ExactTemperature(0.5, 500),
    MostFrequent(8),
]


def broken(path, value=torch.nan, model=None):
    """A model with one weight, or the last of a part, that is not finite."""
    model = tiny(build_head=energy_head) if model is None else model
    found = dict(model.named_parameters())
    name = path if path in found else [name for name in found if name.startswith(path)][-1]
    with torch.no_grad():
        found[name].view(-1)[0] = value
    return model


CASES = [(part, path) for part, paths in PARTS.items() for path in paths]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize(("part", "path"), CASES)
def test_generation_names_the_part(part, path, sampler):
    # An infinite scale of one feature is NaN after it has been normalised, or infinite.
    for value in (torch.nan, torch.inf):
        model = broken(path, value)
        with pytest.raises(NonFiniteError, match=f"{part} must be finite"):
            model.generate([[1, 2, 3]] * 3, max_new_tokens=9, sampler=sampler)
        with pytest.raises(NonFiniteError, match=f"{part} must be finite"):
            next(model.stream([1, 2, 3], max_new_tokens=9, sampler=sampler))


def test_also_where_shapes_are_no_longer_checked():
    """The third chunk and later ones."""
    model = tiny()
    stream = model.stream([1, 2], max_new_tokens=30)
    for _ in range(9):
        next(stream)
    broken("head.map.weight", model=model)
    with pytest.raises(NonFiniteError, match="latents of the head"):
        list(stream)


@pytest.mark.parametrize(("part", "path"), CASES)
def test_ranking_sampling_and_evaluation_name_the_part(part, path):
    model = broken(path)
    states = torch.full((2, HIDDEN), torch.nan if "states" in part else 1.0)
    calls = [
        lambda: rank(model, [1, 2], [[1, 2, 3]], num_samples=16),
        lambda: model.sample_chunks(states, 2),
        lambda: evaluate(model, rows(3), SETTINGS, seed=0),
    ]
    if "logits" not in part:  # latents are not decoded then
        calls.append(lambda: rank(model, [1, 2], [[1, 2, 3]], num_samples=16, rule=EnergyScore()))
    for call in calls:
        with pytest.raises(NonFiniteError, match=f"{part} must be finite"):
            call()


SETTINGS = EvaluationSettings(rows=2, draws=2, min_context=2, bootstrap=10)


def rows(chunk_size):
    tokens = torch.randint(VOCAB, (2, 5, chunk_size))
    batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((5,),) * 2)
    return EvaluationRows(batch, torch.arange(2))


@pytest.mark.parametrize("sampler", [None, SoftmaxSampler(0.7, 3, 0.9), BatchTemperature(0.5, 8)])
@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("states of the backbone", "backbone.norm.weight"),
        ("logits of the softmax", "output.weight"),
    ],
)
def test_a_softmax_model_names_the_part(part, path, sampler):
    model = broken(path, model=TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2)))
    with pytest.raises(NonFiniteError, match=f"{part} must be finite"):
        model.generate([[1, 2]], max_new_tokens=3, sampler=sampler)
    with pytest.raises(NonFiniteError, match=f"{part} must be finite"):
        evaluate_softmax(model, rows(1), SETTINGS, seed=0)


@pytest.mark.parametrize("kind", [MLPAutoencoder, ContextualAutoencoder])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("blocks", [False, True])
def test_an_autoencoder_refuses_what_is_not_finite(kind, wrapped, blocks, monkeypatch):
    if blocks:  # the wrong logit is in a block of its own
        monkeypatch.setattr("calmkit.autoencoders.regularized._TOKENS_AT_ONCE", 2)
    model = kind(3, VOCAB, 4, width=8)
    whole = StandardizedAutoencoder(model.eval()) if wrapped else model
    latents = torch.randn(5, 4)
    wrong = latents.clone()
    wrong[3, 1] = torch.inf
    assert whole.decode_tokens(latents).shape == (5, 3)
    with pytest.raises(NonFiniteError, match="latents must be finite; 1 of 20"):
        whole.decode_tokens(wrong)
    started = whole.start_decoding(wrong)
    with pytest.raises(NonFiniteError, match="logits of the autoencoder"):
        whole.tokens_at(started, range(1, 3))
    with torch.no_grad():
        model.embedding.weight[0] = torch.nan
    with pytest.raises(NonFiniteError, match="logits of the autoencoder must be finite"):
        whole.decode_tokens(latents)
