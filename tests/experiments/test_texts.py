"""Which sampler the options of `calmkit generate` mean, for either kind of model."""

import json

import pytest

from calmkit.backbones import MinGRUBackbone
from calmkit.config import build
from calmkit.experiments.texts import choose_sampler, read_prompts
from calmkit.models import TokenLM
from calmkit.sampling import BatchTemperature, ExactTemperature, PlainSampler, SoftmaxSampler

CHUNKS = build({
    "vocab_size": 300, "chunk_size": 2, "latent_size": 4, "hidden_size": 8,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 8}},
    "backbone": {"class_path": "MinGRUBackbone", "init_args": {"depth": 1}},
    "head": {"class_path": "EnergyHead", "init_args": {"width": 8, "depth": 1}},
})  # fmt: skip
TOKENS = TokenLM(30, backbone=MinGRUBackbone(8, depth=1))


def test_chunks_are_chosen_by_draws():
    assert choose_sampler(CHUNKS, 1.0, 64) == PlainSampler()
    batch = BatchTemperature(0.5, 32)
    assert choose_sampler(CHUNKS, 0.5, 32) == batch
    assert choose_sampler(CHUNKS, 0.5, 32, exact=True) == ExactTemperature(0.5, fallback=batch)
    assert choose_sampler(CHUNKS, 1.0, 32, top_p=0.8) == BatchTemperature(1.0, 32, top_p=0.8)


def test_tokens_of_a_softmax_are_chosen_by_probabilities():
    assert choose_sampler(TOKENS, 0.7, 64, top_k=5, top_p=0.9) == SoftmaxSampler(0.7, 5, 0.9)
    assert choose_sampler(TOKENS, 1.5, 64) == SoftmaxSampler(1.5)


@pytest.mark.parametrize(
    ("model", "numbers", "text"),
    [
        (CHUNKS, {"temperature": 1.5}, r"temperature must be in \(0, 1\]"),
        (CHUNKS, {"top_k": 5}, "top_k must be omitted for a model that only gives draws"),
        (CHUNKS, {"candidates": 0}, "candidates must be at least"),
        (CHUNKS, {"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        (TOKENS, {"temperature": 0.0}, "temperature must be positive"),
        (TOKENS, {"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(model, numbers, text):
    with pytest.raises(ValueError, match=text):
        choose_sampler(model, **({"temperature": 0.5, "candidates": 8} | numbers))


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_ends_divide_prompts(mark, end, tmp_path):
    """What else ends a line for `str.splitlines` is text; a byte order mark is none."""
    prompts = ["One\u2028two", "three\x85four\x0cfive", "six\x1cseven\u2029\x0b", "eight"]
    plain, lines = tmp_path / "prompts.txt", tmp_path / "prompts.jsonl"
    plain.write_bytes((mark + end.join([*prompts, "", ""])).encode())
    objects = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    lines.write_bytes((mark + end.join([*objects, "", ""])).encode())
    assert read_prompts(plain) == read_prompts(lines) == prompts
