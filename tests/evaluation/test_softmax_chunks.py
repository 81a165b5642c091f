"""Chunks drawn by a softmax: against enumeration, and against the scores of single tokens."""

import pytest
import torch

from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import (
    EvaluationSettings,
    evaluate_softmax,
    evaluate_softmax_chunks,
    softmax_chunks,
)
from calmkit.models import TokenLM

VOCAB = 3
SIZES = [8, 6, 8, 5]


def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2))
        model.output.weight.data *= 6
        return model.requires_grad_(False)


def rows(chunk_size):
    """Four rows of eight tokens, of which SIZES are text, in chunks."""
    tokens = torch.randint(VOCAB, (4, 8), generator=torch.Generator().manual_seed(1))
    real = torch.arange(8) < torch.tensor(SIZES)[:, None]
    tokens, real = (x.view(4, -1, chunk_size) for x in (tokens, real))
    lengths = ((tokens.shape[1],),) * 4
    return EvaluationRows(ChunkBatch(tokens, real, lengths), torch.tensor([0, 1, 2, 3]))


def settings(**changes):
    return EvaluationSettings(
        **{"rows": 2, "draws": 400, "min_context": 2, "bootstrap": 10, **changes}
    )


def next_probabilities(model, text):
    tokens = torch.tensor(text).view(1, -1, 1)
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((len(text),),))
    return model.logits(model.hidden_states(batch)).softmax(dim=-1)[0, -1].tolist()


def exactly(model, held_out):
    """Brier-1 in chunks of two, of which every pair of tokens is enumerated."""
    scores = []
    for row, size in enumerate(SIZES):
        text = held_out.batch.tokens[row].flatten()[:size].tolist()
        for begin in range(4, size, 2):
            first = next_probabilities(model, text[:begin])
            second = [0.0] * VOCAB
            for x, p in enumerate(first):
                after = next_probabilities(model, [*text[:begin], x])
                second = [old + p * q for old, q in zip(second, after, strict=True)]
            for law, y in zip((first, second), text[begin : begin + 2], strict=False):
                scores.append(2 * law[y] - sum(p * p for p in law))
    return sum(scores) / len(scores)


def test_equals_enumeration():
    model, held_out = tiny(), rows(2)
    got = evaluate_softmax_chunks(model, held_out, settings(draws=4000), seed=0, highest_order=1)
    assert got.brier[0].value == pytest.approx(100 * exactly(model, held_out), abs=1)


def test_chunks_of_one_token_have_the_scores_of_single_tokens():
    model, held_out = tiny(), rows(1)
    got = evaluate_softmax_chunks(model, held_out, settings(), seed=0)
    want = evaluate_softmax(model, held_out, settings(), seed=0)
    for one, other in zip(got.brier, want.brier.brier, strict=True):
        assert one.value == pytest.approx(other.value, abs=2)


def test_many_branches_go_in_pieces(monkeypatch):
    model, held_out = tiny(), rows(2)
    whole = evaluate_softmax_chunks(model, held_out, settings(), seed=0)
    monkeypatch.setattr(softmax_chunks, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(softmax_chunks, "BRANCHES_AT_ONCE", 7)
    pieces = evaluate_softmax_chunks(model, held_out, settings(draws=200), seed=0)
    for one, other in zip(pieces.brier, whole.brier, strict=True):
        assert one.value == pytest.approx(other.value, abs=3)
    assert "400 draws after 2 to 3 chunks of 2 tokens of true text" in whole.protocol


def test_the_seed_decides_the_draws():
    model, held_out = tiny(), rows(2)
    found = [
        evaluate_softmax_chunks(model, held_out, settings(draws=4), seed=seed).brier
        for seed in (1, 1, 2)
    ]
    first, again, other = ([one.value for one in brier] for brier in found)
    assert first == again != other


def test_draws_in_evaluation_mode_and_leaves_the_model_as_it_was():
    model, held_out, seen = tiny().train(), rows(2), []
    model.backbone.register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate_softmax_chunks(model, held_out, settings(draws=4), seed=0)
    assert seen and not any(seen) and model.training and model.backbone.training
