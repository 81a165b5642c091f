"""Brier scores from draws are unbiased; with probabilities they are exact."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.data import EvaluationRows
from calmkit.evaluation import EvaluationSettings, evaluate_softmax
from calmkit.models import TokenLM

VOCAB, CONTEXT = 3, 2
ORDERS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2)).double().eval()


def rows_of(texts, documents):
    tokens = torch.tensor(texts)[..., None]
    positions = tokens.shape[1]
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((positions,),) * len(texts))
    return EvaluationRows(batch, torch.tensor(documents))


@torch.no_grad()
def log_law(model, past):
    """The logarithm of the law of the four tokens after a text, (81,), and these tokens."""
    futures = torch.tensor(list(itertools.product(range(VOCAB), repeat=4)))
    tokens = torch.cat([torch.tensor(past).expand(len(futures), -1), futures], dim=1)[..., None]
    batch = ChunkBatch(tokens, torch.ones_like(tokens).bool(), ((tokens.shape[1],),) * len(tokens))
    logs = model.logits(model.hidden_states(batch)).log_softmax(dim=-1)[:, len(past) - 1 : -1]
    return logs.gather(-1, futures[..., None])[..., 0].sum(dim=-1), futures


def true_rates(model, text):
    """Hits and collisions of the n-grams that start at each scored place, by enumeration."""
    hits, collisions = ({n: [] for n in ORDERS} for _ in range(2))
    for place in range(CONTEXT, len(text)):
        logs, futures = log_law(model, text[:place])
        for n in ORDERS:
            if place + n > len(text):
                continue
            numbers = (futures[:, :n] * VOCAB ** torch.arange(n)).sum(dim=-1)
            law = torch.zeros(VOCAB**n, dtype=logs.dtype).index_add_(0, numbers, logs.exp())
            own = sum(token * VOCAB**i for i, token in enumerate(text[place : place + n]))
            hits[n].append(law[own])
            collisions[n].append(law.square().sum())
    return hits, collisions


@pytest.mark.parametrize("draws", [2, 5])
def test_rates_are_unbiased(load, model, draws):
    text, documents = [0, 2, 1, 1, 0, 2, 2], 20
    rows = rows_of([text] * 800, [n % documents for n in range(800)])
    found = load("drawn_brier").drawn_brier(model, rows, min_context=2, draws=draws, seed=0)[0]
    hits, collisions = true_rates(model, text)
    estimates = dict(zip(found.names, found.estimate(), strict=True))
    for n in ORDERS:
        for kind, truth in (("hit", hits[n]), ("collision", collisions[n])):
            one = estimates[f"{kind}_{n}"]
            assert abs(one.value - torch.stack(truth).mean()) < 5 * one.standard_error
            assert one.standard_error < 0.1 * one.value + 0.003


def test_probabilities_give_the_scores_of_the_library(load, model):
    generator = torch.Generator().manual_seed(1)
    texts = torch.randint(VOCAB, (20, 9), generator=generator).tolist()
    rows = rows_of(texts, [n // 2 for n in range(20)])
    _, known = load("drawn_brier").drawn_brier(model, rows, min_context=3, draws=2, seed=0)
    settings = EvaluationSettings(rows=20, draws=2, min_context=3, bootstrap=10)
    theirs = evaluate_softmax(model, rows, settings, seed=0).documents
    names = ("brier_1", "collision_1", *(f"hit_{n}" for n in ORDERS))
    for table in ("sums", "counts"):
        ours = getattr(known.select(*names, "nats"), table)
        assert_close(ours, getattr(theirs.select(*names, "cross_entropy"), table))
    assert known.groups == theirs.groups
