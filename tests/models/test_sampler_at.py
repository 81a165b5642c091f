"""Which sampler the options of a generation mean, for either kind of model."""

import pytest

from calmkit.backbones import MinGRUBackbone
from calmkit.config import build
from calmkit.models import TokenLM
from calmkit.sampling import (
    BatchTemperature,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    SoftmaxSampler,
)

CHUNKS = build({
    "vocab_size": 300, "chunk_size": 2, "latent_size": 4, "hidden_size": 8,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 8}},
    "backbone": {"class_path": "MinGRUBackbone", "init_args": {"depth": 1}},
    "head": {"class_path": "EnergyHead", "init_args": {"width": 8, "depth": 1}},
})  # fmt: skip
TOKENS = TokenLM(30, backbone=MinGRUBackbone(8, depth=1))


def test_chunks_are_chosen_by_draws():
    assert CHUNKS.sampler_at(1.0, candidates=64) == PlainSampler()
    batch = BatchTemperature(0.5, 32)
    assert CHUNKS.sampler_at(0.5, candidates=32) == batch
    exact = CHUNKS.sampler_at(0.5, candidates=32, exact=True)
    assert exact == ExactTemperature(0.5, fallback=batch)
    few = CHUNKS.sampler_at(1.0, candidates=32, top_p=0.8)
    assert few == BatchTemperature(1.0, 32, top_p=0.8)


def test_temperature_0_is_greedy():
    assert CHUNKS.sampler_at(0, candidates=9, top_k=1) == MostFrequent(9)
    assert TOKENS.sampler_at(0) == SoftmaxSampler(top_k=1)


def test_tokens_of_a_softmax_are_chosen_by_probabilities():
    assert TOKENS.sampler_at(0.7, candidates=64, top_k=5, top_p=0.9) == SoftmaxSampler(0.7, 5, 0.9)
    assert TOKENS.sampler_at(1.5, candidates=64) == SoftmaxSampler(1.5)


@pytest.mark.parametrize(
    ("model", "numbers", "text"),
    [
        (CHUNKS, {"temperature": 1.5}, r"temperature must be in \(0, 1\]"),
        (CHUNKS, {"top_k": 5}, "top_k must be omitted for a model that only gives draws"),
        (CHUNKS, {"candidates": 0}, "candidates must be at least"),
        (CHUNKS, {"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        (CHUNKS, {"temperature": 0, "exact": True}, r"temperature must be in \(0, 1\]"),
        (TOKENS, {"temperature": -1.0}, "temperature must be positive"),
        (TOKENS, {"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(model, numbers, text):
    with pytest.raises(ValueError, match=text):
        model.sampler_at(**({"temperature": 0.5, "candidates": 8} | numbers))
