"""Continued rows, compared by plain loops: prompts, lengths, ends and errors."""

import math

import pytest
import torch
from evaluation_problems import HIDDEN, VOCAB, model_of, rows_of
from ngram_loops import loop_bleu, loop_chrf

from calmkit.backbones import TransformerBackbone
from calmkit.evaluation import continue_rows
from calmkit.models import TokenLM
from calmkit.sampling import PlainSampler, SoftmaxSampler

SIZES = [24, 24, 24, 15, 9, 24, 24, 24, 24, 24, 24]
# Row 4 ends within the context.
CHUNK, CONTEXT, TOKENS = 2, 5, 7


class Letters:
    """A tokenizer whose tokens are words of one letter; the last one ends a text."""

    end_id = VOCAB - 1

    def decode(self, tokens):
        return " ".join("abcd"[token] for token in tokens)


def greedy_token_lm():
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = TokenLM(VOCAB, backbone=TransformerBackbone(HIDDEN, depth=2, heads=2))
        return model, SoftmaxSampler(top_k=1)


MODELS = {
    "CALM": lambda: (model_of(CHUNK), PlainSampler(), CHUNK),
    "TokenLM": lambda: (*greedy_token_lm(), 1),
}


def texts_by_loop(model, sampler, rows, chunk_size):
    """Row by row: the context's tokens as a prompt, and as many tokens as the true text has."""
    cut, written, true = CONTEXT * CHUNK, [], []
    for tokens, real in zip(rows.batch.tokens, rows.batch.real, strict=True):
        text = tokens[real].tolist()
        if len(text) <= cut:
            continue
        true.append(text[cut : cut + TOKENS])
        (found,) = model.generate(
            [text[:cut]], max_new_tokens=len(true[-1]), eos_id=Letters.end_id, sampler=sampler
        )
        written.append(found.tokens)
    return written, true


def continued(model, sampler, rows, chunk_size, **changes):
    options = {"min_context": CONTEXT * CHUNK // chunk_size, "tokens": TOKENS, "seed": 0}
    return continue_rows(model, Letters(), rows, sampler, **{**options, **changes})


def right(texts, true):
    pairs = zip(texts, true, strict=True)
    return [sum(a == b for a, b in zip(x, y, strict=False)) for x, y in pairs]


@pytest.mark.parametrize("name", MODELS)
def test_are_the_scores_of_a_loop(name):
    model, sampler, chunk_size = MODELS[name]()
    rows = rows_of(chunk_size, SIZES, list(range(len(SIZES))))
    written, true = texts_by_loop(model, sampler, rows, chunk_size)
    assert any(len(x) < len(y) for x, y in zip(written, true, strict=True)), "one ends early"
    half = len(true) // 2
    found = continued(model, sampler, rows, chunk_size)
    assert (found.rows, found.tokens) == (len(SIZES) - 1, TOKENS)
    for scores, texts in ((found.model, written), (found.other_text, true[half:] + true[:half])):
        texts = [x[: len(y)] for x, y in zip(texts, true, strict=True)]
        pairs = [
            (Letters().decode(x), Letters().decode(y)) for x, y in zip(texts, true, strict=True)
        ]
        assert scores.chrf.value == pytest.approx(100 * loop_chrf(pairs))
        assert scores.bleu.value == pytest.approx(100 * loop_bleu(pairs))
        share = sum(right(texts, true)) / sum(map(len, true))
        assert scores.accuracy.value == pytest.approx(100 * share)
        # The error is that of leaving out each document.
        without = [
            loop_chrf(pairs[:i] + pairs[i + 1 :]) - loop_chrf(pairs) for i in range(len(pairs))
        ]
        n = len(pairs)
        error = math.sqrt((n - 1) / n * sum(x * x for x in without))
        assert scores.chrf.standard_error == pytest.approx(100 * error)
        low, high = scores.chrf.interval
        assert low < scores.chrf.value < high


def test_rows_of_few_documents_have_errors_and_no_interval():
    model, sampler, chunk_size = MODELS["CALM"]()
    rows = rows_of(chunk_size, SIZES, [n // 4 for n in range(len(SIZES))])
    found = continued(model, sampler, rows, chunk_size)
    each = continued(model, sampler, rows_of(chunk_size, SIZES, [*range(11)]), chunk_size)
    assert found.model.chrf.interval is None
    assert found.model.chrf.standard_error == each.model.chrf.standard_error


class Copies:
    """Writes the true text of its rows, which it knows by their prompts."""

    backbone = type("Backbone", (), {"device": torch.device("cpu")})

    def __init__(self, rows):
        self.texts = [
            t[r].tolist() for t, r in zip(rows.batch.tokens, rows.batch.real, strict=True)
        ]
        self.calls = []

    def generate(self, prompts, *, max_new_tokens, eos_id, sampler, generator):
        self.calls.append(len(prompts))
        found = []
        for prompt in prompts:
            (text,) = (x for x in self.texts if x[: len(prompt)] == prompt)
            tokens = (text[len(prompt) :] + [0] * max_new_tokens)[:max_new_tokens]
            found.append(type("Written", (), {"tokens": tokens}))
        return found


def test_a_perfect_model_in_groups_of_rows():
    """Rows that end early are compared up to their end."""
    rows = rows_of(CHUNK, [24] * 40 + [13] * 10, list(range(50)))
    model = Copies(rows)
    found = continued(model, None, rows, CHUNK)
    assert model.calls == [32, 18]
    for score in (found.model.chrf, found.model.bleu, found.model.accuracy):
        assert score.value == pytest.approx(100.0) and score.standard_error < 1e-6
    assert found.other_text.accuracy.value < 50
    assert str(found).startswith(
        "50 rows by up to 7 tokens; the true text of another place scores"
    )


def test_the_seed_decides():
    model = greedy_token_lm()[0]
    rows = rows_of(1, SIZES, list(range(len(SIZES))))
    one, same, other = (continued(model, PlainSampler(), rows, 1, seed=seed) for seed in (1, 1, 2))
    assert one == same and one.other_text == other.other_text and one.model != other.model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 0}, "tokens must be at least 1; got 0"),
        ({"min_context": 8}, "after min_context = 8 chunks, for a standard error; 1 of 3 do"),
    ],
)
def test_too_little_is_refused(changes, message):
    model, sampler, _ = MODELS["CALM"]()
    with pytest.raises(ValueError, match=message):
        continued(model, sampler, rows_of(CHUNK, [24, 15, 9], [0, 1, 2]), CHUNK, **changes)
