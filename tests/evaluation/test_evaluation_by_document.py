"""What an evaluation hands on for a comparison: sums by document, equal to its own numbers."""

import pytest
import torch
from evaluation_problems import model_of, rows_of, settings

from calmkit.evaluation import evaluate, evaluate_softmax
from calmkit.evaluation.scored_text import find_targets
from calmkit.heads import GaussianHead
from calmkit.metrics import BrierLM, DocumentScores, paired_difference

NAMES = [f"{kind}_{n}" for kind in ("brier", "hit", "collision") for n in (1, 2, 3, 4)]


def spread_out(chunk_size):
    head = GaussianHead(8, 6, width=8, depth=1, std=1.0)
    return model_of(chunk_size, head)


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 8])
def test_documents_add_up_to_the_numbers(chunk_size):
    rows = rows_of(chunk_size, [5 * chunk_size + 3] * 16, sorted([*range(8)] * 2))
    got = evaluate(spread_out(chunk_size), rows, settings(), seed=0)
    found = got.documents
    assert found.names == (*NAMES, "energy_score")
    assert (found.groups, found.unit) == (tuple(range(8)), "documents")
    estimates = dict(zip(found.names, found.estimate(resamples=200, seed=0), strict=True))
    assert estimates["energy_score"] == got.energy_score
    assert found.counts[:, 0].sum() == got.scored_tokens
    for n, score in enumerate(got.brier.ngrams, start=1):
        for kind in ("brier", "hit", "collision"):
            one, other = getattr(score, kind), estimates[f"{kind}_{n}"].scaled(100)
            assert one.value == pytest.approx(other.value)
            assert one.standard_error == pytest.approx(other.standard_error)
            assert one.interval == pytest.approx(other.interval)
    assert DocumentScores.from_dict(found.to_dict()) == found
    assert got.brier.protocol == got.protocol and got.protocol in str(got.brier)


def test_few_documents_are_compared_by_row_and_empty_ones_left_out():
    rows = rows_of(4, [20, 20, 8, 20], [0, 0, 1, 2])
    found = evaluate(model_of(4), rows, settings(), seed=0).documents
    assert (found.groups, found.unit) == ((0, 1, 3), "rows")


def test_models_are_compared_on_the_same_rows():
    rows = rows_of(2, [20] * 8, list(range(8)))
    one, other = (evaluate(m, rows, settings(), seed=0) for m in (model_of(2), spread_out(2)))
    differences = paired_difference(one.documents, other.documents, resamples=50)
    assert differences[-1].value == pytest.approx(
        one.energy_score.value - other.energy_score.value
    )
    fewer = rows_of(2, [20] * 8, [0, 1, 2, 3, 4, 5, 6, 9])
    elsewhere = evaluate(model_of(2), fewer, settings(), seed=0)
    with pytest.raises(ValueError, match="groups must be the same in both evaluations"):
        paired_difference(one.documents, elsewhere.documents)


def test_softmax_models_too():
    from calmkit.backbones import TransformerBackbone
    from calmkit.models import TokenLM

    rows = rows_of(1, [9] * 8, list(range(8)))
    model = TokenLM(4, backbone=TransformerBackbone(8, depth=1, heads=2))
    got = evaluate_softmax(model, rows, settings(), seed=0)
    assert got.documents.names == (*NAMES, "cross_entropy")
    *scores, cross_entropy = got.documents.estimate(resamples=200, seed=0)
    assert cross_entropy == got.cross_entropy
    assert got.perplexity == pytest.approx(float(torch.tensor(cross_entropy.value).exp()))
    assert [s.value for s in scores[:4]] == pytest.approx([b.value / 100 for b in got.brier.brier])
    # With a model that is only drawn from: on what both have.
    drawn = evaluate(model_of(1), rows, settings(), seed=0)
    both = (found.documents.select(*NAMES) for found in (drawn, got))
    assert len(paired_difference(*both, resamples=50)) == 12


@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_the_metric_gives_what_evaluate_gives(chunk_size, monkeypatch):
    """The same draws, handed to `BrierLM`."""
    from calmkit.evaluation import sampled_evaluation

    rows = rows_of(chunk_size, [5 * chunk_size + 3] * 8, list(range(8)))
    seen = []

    def remembering(*arguments, draw=sampled_evaluation._draw):
        seen.append(draw(*arguments)[1])
        return draw(*arguments)

    model = model_of(chunk_size)
    monkeypatch.setattr(sampled_evaluation, "_draw", remembering)
    want = evaluate(model, rows, settings(), seed=0)
    targets = find_targets(rows.batch.tokens, rows.batch.real, 2)
    metric = BrierLM(8, chunk_size, resamples=200, protocol=want.protocol)
    metric.update(seen[0], targets.tokens, document=targets.row, valid=targets.is_text)
    assert metric.compute() == want.brier


@pytest.mark.parametrize("highest_order", [1, 2, 6])
def test_other_orders(highest_order):
    """The lower ones are the same numbers, where the model draws the same chunks."""
    model, rows = model_of(2), rows_of(2, [20] * 4, [0, 1, 2, 3])
    usual = evaluate(model, rows, settings(), seed=0)
    got = evaluate(model, rows, settings(), seed=0, highest_order=highest_order)
    assert len(got.brier.brier) == highest_order
    for n in range(1, min(highest_order, 4) + 1):
        # Brier-4 of four drawn tokens has one place, of six two.
        one, other = (x.brier.places[n - 1][0].brier for x in (usual, got))
        assert one.value == pytest.approx(other.value)
