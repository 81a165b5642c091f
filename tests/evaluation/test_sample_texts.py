"""Texts at several temperatures: which, from which prompts, how long, and their numbers."""

import calm_models
import numpy as np
import pytest
import torch
from evaluation_problems import rows_of

from calmkit.backbones import TransformerBackbone
from calmkit.data import TokenStore
from calmkit.evaluation import sample_texts
from calmkit.evaluation.sample_texts import SampleText, nearest_variety, prompts_of, write_samples
from calmkit.models import TokenLM
from calmkit.sampling import BatchTemperature

LETTERS = "|ab cde"


class Letters:
    """A tokenizer with one letter for each id."""

    end_id = 0

    def decode(self, tokens):
        return "".join(LETTERS[token] for token in tokens)


@pytest.fixture
def calm():
    return calm_models.tiny(2, build_head=calm_models.energy_head).eval()


@pytest.fixture
def softmax():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TokenLM(calm_models.VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2)).eval()


PROMPTS = [([1, 2, 1, 2], [3, 1, 2, 3, 4, 5, 6]), ([3, 1], [2, 3, 1, 2]), ([4], [1]), ([5], [1])]


def written(model, **changes):
    known = {
        "sampler": None, "max_new_tokens": 6, "sampling_flops": 1.0, "seed": 3,
        "training_text": None,
    }  # fmt: skip
    return write_samples(model, Letters(), PROMPTS, **(known | changes))


def test_a_model_that_gives_draws_writes_at_three_temperatures(calm):
    found = written(calm)
    assert [one.name for one in found] == [
        "T = 1", "T = 1/2, N = 200", "T = 1/3, N = 200", "held-out text",
    ]  # fmt: skip
    assert [one.temperature for one in found] == [1.0, 1 / 2, 1 / 3, None]
    for one in found[:3]:
        assert len(one.texts) == 4 and one.texts[0].startswith("[abab]")
        assert one.tokens == sum(len(text.partition("]")[2]) for text in one.texts) <= 4 * 6
    assert found[3].texts[0] == "[abab] ab cd" and found[3].tokens == 6 + 4 + 1 + 1
    assert found == written(calm) != written(calm, seed=4)


def test_the_sampler_of_the_config_comes_first(calm):
    sampler = BatchTemperature(0.25, candidates=9)
    found = written(calm, sampler=sampler)
    assert found[0].name == str(sampler) and found[0].temperature == 0.25
    assert found[1:] == written(calm)


def test_a_softmax_writes_at_a_range_of_temperatures(softmax):
    *found, true = written(softmax)
    assert [one.name for one in found] == [
        f"T = {t}" for t in ("1", "0.9", "0.8", "0.7", "0.6", "1/2", "0.4", "1/3")
    ]
    assert true.known_chunks is None


def test_costly_tokens_make_fewer_texts_and_then_shorter_ones(calm, monkeypatch):
    cost = 200 * 3.0
    for tokens, texts, each in ((13, 2, 6), (7, 1, 6), (4, 1, 4), (0, 1, 2)):
        monkeypatch.setattr(sample_texts, "_MOST_FLOPS", {"cpu": (tokens + 0.5) * cost})
        found = written(calm, sampling_flops=3.0)
        assert len(found[0].texts) == 4  # one draw a chunk
        for one in found[1:3]:
            assert len(one.texts) == texts and one.tokens <= texts * each
            assert one.tokens == texts * each or "|" not in one.texts[0]
        assert len(found[3].texts) == 4


def test_numbers_are_over_all_texts(calm):
    #                            | a b _ c d | b _ |
    stream = np.array([0, 1, 2, 3, 4, 5, 0, 2, 3, 0])
    store = TokenStore(stream, np.array([0, 6, 10]), 7, 0, num_characters=7)
    true = written(calm, training_text=store)[3]
    # " ab cd" after "abab": ab is known, cd is cut; "b ab": b is known; ab cut; "a", "a".
    assert true.known_words == 1.0
    # Chunks of two tokens: " a" "b " "cd" | "b " "ab".
    assert true.known_chunks == 4 / 5
    # " ab ", "ab c", "b cd" | "b ab".
    assert true.known_4grams == 2 / 4
    assert true.distinct == (5 / 12, 5 / 8, 5 / 6)


def test_without_a_training_text_nothing_is_known(calm):
    for one in written(calm):
        assert (one.known_words, one.known_chunks, one.known_4grams) == (None, None, None)
        assert len(one.distinct) == 3


@pytest.mark.parametrize("length", [3, 50])
def test_prompts_are_beginnings_of_rows_spread_over_the_text(length):
    rows = rows_of(2, [10, 10, 3, 10, 10, 7, 10, 10], list(range(8)))
    found = prompts_of(rows, length)
    assert len(found) == 4
    for (prompt, rest), row in zip(found, (0, 2, 4, 6), strict=True):
        text = rows.batch.tokens[row][rows.batch.real[row]].tolist()
        assert prompt + rest == text and len(prompt) == min(length, len(text) // 2)
    assert len(prompts_of(rows_of(2, [10, 10], [0, 1]), 3)) == 2


def test_the_text_beside_is_that_of_the_nearest_distinct_2():
    def of(variety, temperature=1.0):
        return SampleText(name="", temperature=temperature, texts=(), distinct=(0.1, variety, 0.9))

    softmax = [of(0.9), of(0.7, 0.5), of(0.2, 0.3), of(0.5, None)]
    assert nearest_variety(softmax, of(0.75)) is softmax[1]
    assert nearest_variety(softmax, of(0.45)) is softmax[1]  # the last has no temperature
    assert nearest_variety(softmax, of(0.0)) is softmax[2]
    assert nearest_variety(softmax, SampleText(name="", temperature=1.0, texts=())) is None
    assert nearest_variety(softmax[3:], of(0.5)) is None
