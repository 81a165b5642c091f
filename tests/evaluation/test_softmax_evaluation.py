"""Evaluation by probabilities: against enumeration without a cache, and against draws."""

import itertools
import math

import pytest
import resident_memory
import torch

from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import softmax_evaluation
from calmkit.evaluation.scored_text import EvaluationSettings
from calmkit.evaluation.softmax_evaluation import evaluate_softmax
from calmkit.metrics import brier_ngram
from calmkit.models import TokenLM

VOCAB = 3
SIZES = [8, 6, 8, 5]


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2))
        model.output.weight.data *= 6
        return model.requires_grad_(False)


def rows():
    tokens = torch.randint(VOCAB, (4, 8, 1), generator=torch.Generator().manual_seed(1))
    real = torch.arange(8).view(1, 8, 1) < torch.tensor(SIZES).view(-1, 1, 1)
    return EvaluationRows(ChunkBatch(tokens, real, ((8,),) * 4), torch.tensor([0, 1, 2, 3]))


def settings(**changes):
    return EvaluationSettings(
        **{"rows": 2, "draws": 400, "min_context": 2, "bootstrap": 200, **changes}
    )


def log_p(model, text, continuation):
    """Log-probability of tokens after a text, read anew."""
    tokens = torch.tensor([*text, *continuation]).view(1, -1, 1)
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((tokens.shape[1],),))
    logs = model.logits(model.hidden_states(batch)).log_softmax(dim=-1)[0]
    return sum(float(logs[len(text) - 1 + i, x]) for i, x in enumerate(continuation))


def exactly(model, held_out):
    """Brier-1..4 and the cross entropy with every n-gram enumerated."""
    sums, counts = [0.0] * 5, [0] * 5
    for row, size in enumerate(SIZES):
        text = held_out.batch.tokens[row, :size, 0].tolist()
        for place in range(2, size):
            sums[4] -= log_p(model, text[:place], text[place : place + 1])
            counts[4] += 1
            for order in range(1, min(4, size - place) + 1):
                p = {
                    x: math.exp(log_p(model, text[:place], x))
                    for x in itertools.product(range(VOCAB), repeat=order)
                }
                y = tuple(text[place : place + order])
                sums[order - 1] += 2 * p[y] - sum(q * q for q in p.values())
                counts[order - 1] += 1
    return [s / c for s, c in zip(sums, counts, strict=True)], counts


def test_equals_enumeration():
    model, held_out = tiny(), rows()
    want, counts = exactly(model, held_out)
    got = evaluate_softmax(model, held_out, settings(), seed=0)
    assert got.brier.brier[0].value == pytest.approx(100 * want[0], rel=1e-5)
    assert got.cross_entropy.value == pytest.approx(want[4], rel=1e-5)
    assert got.scored_tokens == counts[0]
    # Only the prefixes of the collision term are drawn: 400 at each of 19 points.
    for order in (2, 3, 4):
        assert got.brier.brier[order - 1].value == pytest.approx(100 * want[order - 1], abs=0.5)
    other = evaluate_softmax(model, held_out, settings(), seed=1)
    assert other.brier.brier[0].value == got.brier.brier[0].value
    assert other.brier.brier[2].value != got.brier.brier[2].value


def test_draws_alone_agree_and_are_noisier():
    model, held_out = tiny(), rows()
    want, _ = exactly(model, held_out)
    generator = torch.Generator().manual_seed(3)
    values = {1: [], 2: []}
    for row, size in enumerate(SIZES):
        text = held_out.batch.tokens[row, :size, 0]
        for place in range(2, size):
            prompts = [text[:place].tolist()] * 4 * 60  # 60 estimates from 4 draws each
            got = model.generate(prompts, max_new_tokens=2, generator=generator)
            draws = torch.tensor([one.tokens for one in got]).reshape(4, 60, 2)
            for order in (1, 2):
                if place + order <= size:
                    target = text[place : place + order].expand(60, order)
                    values[order].append(brier_ngram(draws[..., :order], target, order))
    estimates = {order: torch.stack(found).mean(dim=0) for order, found in values.items()}
    by_probability = [
        evaluate_softmax(model, held_out, settings(draws=4), seed=s).brier.brier[1].value / 100
        for s in range(60)
    ]
    for order in (1, 2):
        drawn = estimates[order]
        assert abs(drawn.mean() - want[order - 1]) < 5 * drawn.std() / 60**0.5
    known = torch.tensor(by_probability)
    assert abs(known.mean() - want[1]) < 5 * known.std() / 60**0.5
    assert known.std() < 0.5 * estimates[2].std()  # measured: 0.13


def test_many_rows_go_in_pieces(monkeypatch):
    model, held_out = tiny(), rows()
    whole = evaluate_softmax(model, held_out, settings(), seed=0)
    monkeypatch.setattr(softmax_evaluation, "ROWS_AT_ONCE", 3)
    pieces = evaluate_softmax(model, held_out, settings(), seed=0)
    assert pieces.brier.brier[0].value == pytest.approx(whole.brier.brier[0].value)
    assert pieces.cross_entropy.value == pytest.approx(whole.cross_entropy.value)


def test_a_large_vocabulary_goes_in_pieces(monkeypatch):
    """Few logits at a time: the same hits and nats, and other draws of the same law."""
    model, held_out = tiny(), rows()
    whole = evaluate_softmax(model, held_out, settings(), seed=0)
    monkeypatch.setattr(softmax_evaluation, "_LOGITS_AT_ONCE", 3 * VOCAB)
    monkeypatch.setattr("calmkit.nn.vocabulary._LOGITS_AT_ONCE", 2)
    pieces = evaluate_softmax(model, held_out, settings(), seed=0)
    assert pieces.brier.brier[0].value == pytest.approx(whole.brier.brier[0].value)
    assert pieces.cross_entropy.value == pytest.approx(whole.cross_entropy.value)
    for one, other in zip(pieces.brier.brier[1:], whole.brier.brier[1:], strict=True):
        assert one.value == pytest.approx(other.value, abs=0.5)


@resident_memory.needs_linux
def test_memory_is_bounded(tmp_path):
    grown = resident_memory.growth(resident_memory.softmax_evaluation, tmp_path)
    assert grown < 250  # measured: 194


def test_the_protocol_is_told():
    got = evaluate_softmax(tiny(), rows(), settings(draws=5), seed=0)
    assert got.protocol.startswith("probabilities after 2 to 7 tokens of true text, in 4 rows")
    assert "5 prefixes" in got.protocol and "19 tokens scored" in got.protocol


def test_chunks_of_more_tokens_are_refused():
    tokens = torch.zeros(2, 4, 2, dtype=torch.long)
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((4,), (4,)))
    with pytest.raises(ValueError, match="chunks of one token for a TokenLM; got 2"):
        evaluate_softmax(tiny(), EvaluationRows(batch, torch.tensor([0, 1])), settings(), seed=0)
