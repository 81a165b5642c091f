"""Texts as prompts, temperatures, and streams that say how they ended."""

import pytest
from calm_models import VOCAB, energy_head, tiny
from seeding import seeded

from calmkit.backbones import TransformerBackbone
from calmkit.models import TokenLM
from calmkit.sampling import BatchTemperature, SoftmaxSampler


class Letters:
    """Letters a, b, ... as ids 1, 2, ...; 0 ends a text."""

    end_id = 0

    def encode(self, text):
        return [ord(letter) - ord("a") + 1 for letter in text]

    def decode(self, tokens):
        return "".join(chr(ord("a") + token - 1) for token in tokens)


@pytest.fixture
def model():
    model = tiny(build_head=energy_head)
    model.tokenizer = Letters()
    return model


def test_texts_are_continued_as_their_ids_are(model):
    ids = model.generate(
        [[0, 1, 2], [0, 3]], max_new_tokens=9, eos_id=0, generator=seeded(0)
    )  # fmt: skip
    texts = model.generate(["ab", "c"], max_new_tokens=9, generator=seeded(0))
    assert [one.tokens for one in texts] == [one.tokens for one in ids]
    assert [one.text for one in texts] == [model.tokenizer.decode(one.tokens) for one in ids]
    assert [one.text for one in ids] == [None, None]


def test_a_single_text_is_one_prompt(model):
    (one,) = model.generate("ab", max_new_tokens=4, generator=seeded(1))
    (same,) = model.generate(["ab"], max_new_tokens=4, generator=seeded(1))
    assert one == same
    stream = model.stream("ab", max_new_tokens=4, generator=seeded(1))
    assert list(stream) == one.tokens


def test_ids_without_a_list_around_them_are_no_prompts(model):
    message = r"prompts must be a list of prompts, .*; got token ids alone"
    with pytest.raises(ValueError, match=message):
        model.generate([1, 2, 3], max_new_tokens=4)


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_a_stream_says_how_it_ended(chunk_size):
    model = tiny(chunk_size, build_head=energy_head)
    reasons = set()
    for seed in range(8):
        settings = {"max_new_tokens": 7, "eos_id": 1, "temperature": 0.5}
        (whole,) = model.generate([[1, 2]], **settings, generator=seeded(seed))
        stream = model.stream([1, 2], **settings, generator=seeded(seed))
        assert stream.generation.tokens == [] and stream.generation.chunks == 0
        assert list(stream) == whole.tokens and stream.generation == whole
        reasons.add(whole.finish_reason)
    assert reasons == {"stop", "length"}


def test_a_temperature_names_the_usual_sampler(model):
    for given, sampler in (({"temperature": 0.5}, BatchTemperature(0.5)), ({}, None)):
        found = model.generate("ab", max_new_tokens=6, **given, generator=seeded(2))
        named = model.generate("ab", max_new_tokens=6, sampler=sampler, generator=seeded(2))
        assert found == named
    assert found[0].draws == found[0].chunks
    softmax = TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2))
    assert softmax.sampler_at(2.0) == SoftmaxSampler(2.0)
    (cold,) = softmax.generate([[1]], max_new_tokens=3, temperature=1e-6)
    (again,) = softmax.generate([[1]], max_new_tokens=3, temperature=1e-6)
    assert cold.tokens == again.tokens


@pytest.mark.parametrize(
    ("prompts", "settings", "text"),
    [
        (["ab", [1]], {}, "must be all texts or all token ids"),
        ("ab", {"temperature": 2.0}, "temperature must be in"),
        ("ab", {"temperature": 0.5, "sampler": BatchTemperature()}, "must be left out with a"),
        ([], {}, "prompts must"),
    ],
)
def test_mistakes(model, prompts, settings, text):
    with pytest.raises(ValueError, match=text):
        model.generate(prompts, max_new_tokens=3, **settings)


def test_a_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="for a model without a tokenizer; got text"):
        tiny().generate("ab", max_new_tokens=3)
    assert tiny().tokenizer is None
