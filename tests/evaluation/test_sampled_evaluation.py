"""Evaluation: drawn continuations equal a plain loop, and every number its definition."""

import re

import pytest
import torch
import yaml
from evaluation_problems import HIDDEN, LATENT, VOCAB, model_of, rows_of, settings

from calmkit.attention import KVCache
from calmkit.backbones import TransformerBackbone
from calmkit.config.parsing import PRESETS
from calmkit.evaluation import sampled_evaluation
from calmkit.evaluation.sampled_evaluation import evaluate, evaluate_unigram
from calmkit.evaluation.scored_text import EvaluationSettings, positions_read
from calmkit.heads import EnergyHead
from calmkit.metrics import expected_brier
from calmkit.scoring import EnergyScore


@torch.no_grad()
def literally(model, rows, settings):
    """Values of Brier-1..4 and the energy score: metric -> [(row, value), ...]; no cache."""
    chunk_size = model.chunk_size
    values = {name: [] for name in (1, 2, 3, 4, "energy")}
    for row in range(len(rows.document)):
        tokens, real = rows.batch.tokens[row], rows.batch.real[row]
        text = tokens.flatten()[: int(real.sum())].tolist()
        for place in range(settings.min_context, len(tokens)):
            if not real[place].any():
                continue
            draws, latents = [], None
            for n in range(settings.draws):
                known, drawn = tokens[:place], []
                while len(drawn) < max(4, chunk_size):
                    everything = torch.ones_like(known, dtype=torch.bool)
                    state = model.backbone(model.input_encoder(known, everything)[None])[:, -1]
                    samples = model.head.sample(state, settings.draws)
                    if not drawn:
                        latents, sample = samples[:, 0], samples[n]
                    else:
                        sample = samples[0]  # a continuation is drawn alone
                    chunk = model.autoencoder.decode(sample).argmax(-1)
                    known, drawn = torch.cat([known, chunk]), drawn + chunk[0].tolist()
                draws.append(drawn)
            posterior = model.autoencoder.encode(tokens[place])
            values["energy"].append((row, float(EnergyScore().score(latents, posterior))))
            for order in (1, 2, 3, 4):
                for start in range(chunk_size):
                    begin = place * chunk_size + start
                    if start + order > len(draws[0]) or begin + order > len(text):
                        continue
                    y = text[begin : begin + order]
                    x = [d[start : start + order] for d in draws]
                    pairs = [(a, b) for a in range(len(x)) for b in range(a)]
                    total = sum((x[a] == y) + (x[b] == y) - (x[a] == x[b]) for a, b in pairs)
                    values[order].append((row, total / len(pairs)))
    return values


def mean(values):
    return sum(v for _, v in values) / len(values)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5])
def test_equals_a_plain_loop(chunk_size):
    model = model_of(chunk_size)
    most = max(5 * chunk_size, 8)
    sizes = [most, most - chunk_size, 3 * chunk_size + 1, most]
    rows = rows_of(chunk_size, sizes, [0, 0, 1, 2])
    want = literally(model, rows, settings())
    got = evaluate(model, rows, settings(), seed=0)
    for order in (1, 2, 3, 4):
        assert got.brier.brier[order - 1].value == pytest.approx(100 * mean(want[order]))
    assert got.energy_score.value == pytest.approx(mean(want["energy"]))
    assert got.scored_tokens == len(want[1])
    assert len({v for _, v in want[1]}) > 1, "the stub's scores must vary"


def test_many_rows_go_in_pieces(monkeypatch):
    """More rows and branches than are taken at once."""
    monkeypatch.setattr(sampled_evaluation, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(sampled_evaluation, "BRANCHES_AT_ONCE", 7)
    model, rows = model_of(2), rows_of(2, [10] * 5, list(range(5)))
    want = literally(model, rows, settings())
    got = evaluate(model, rows, settings(), seed=0)
    for order in (1, 2, 3, 4):
        assert got.brier.brier[order - 1].value == pytest.approx(100 * mean(want[order]))


def group_error(values, groups):
    """Bootstrap error for groups of equal size, in closed form."""
    means = [mean([(r, v) for r, v in values if groups[r] == g]) for g in sorted(set(groups))]
    return float(torch.tensor(means).var(correction=0).div(len(means)).sqrt())


def test_few_documents_resample_rows_and_many_resample_documents():
    model = model_of(4)
    for document, unit in (
        ([0] * 8 + [1] * 8, "16 rows"),
        (sorted([*range(8)] * 2), "8 documents"),
    ):
        rows = rows_of(4, [20] * 16, document)
        want = literally(model, rows, settings())
        got = evaluate(model, rows, settings(bootstrap=20_000), seed=0)
        groups = list(range(16)) if "rows" in unit else document
        # 0.5 % is the relative error of a standard deviation from 20 000 draws.
        want_error = group_error(want["energy"], groups)
        assert got.energy_score.standard_error == pytest.approx(want_error, rel=4.9 * 0.005)
        assert got.protocol.endswith(f"standard errors over {unit}")


def test_protocol_names_draws_context_and_tokens():
    rows = rows_of(4, [20, 13, 8], [0, 1, 2])
    result = evaluate(model_of(4), rows, settings(), seed=0)
    assert result.scored_tokens == 12 + 5
    assert result.protocol == (
        "3 draws after 2 to 4 chunks of 4 tokens of true text, in 3 rows without overlap; "
        "17 tokens scored; seed 0; standard errors over 2 rows"
    )


def test_tokens_before_the_context_are_not_scored_but_read():
    model, rows = model_of(4), rows_of(4, [20, 20], [0, 1])
    narrow = evaluate(model, rows, settings(min_context=4), seed=0)
    want = literally(model, rows, settings(min_context=4))
    assert narrow.scored_tokens == 8
    assert narrow.brier.brier[0].value == pytest.approx(100 * mean(want[1]))


def test_seeded_and_mode_restored():
    head = EnergyHead(HIDDEN, LATENT, width=8, depth=1, noise_size=3)
    model, rows = model_of(2, head).train(), rows_of(2, [10] * 3, [0, 1, 2])
    scores = [evaluate(model, rows, settings(), seed=s).energy_score.value for s in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]
    assert model.training and not model.autoencoder.training


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5])
def test_unigram_is_exact_at_the_same_places(chunk_size):
    """Product law of order n, with all its outcomes listed, where `literally` scores."""
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    most = max(5 * chunk_size, 8)
    rows = rows_of(chunk_size, [most, 3 * chunk_size + 1, most - chunk_size], [0, 1, 2])
    got = evaluate_unigram(p, rows, settings(), seed=0)
    for order in (1, 2, 3, 4):
        joint = p
        for _ in range(order - 1):
            joint = (joint[:, None] * p).flatten()
        values = []
        for row, size in enumerate(rows.batch.real.flatten(1).sum(1).tolist()):
            text = rows.batch.tokens[row].flatten()[:size].tolist()
            drawn = -(-max(4, chunk_size) // chunk_size) * chunk_size
            for begin in range(2 * chunk_size, size - order + 1):
                if begin % chunk_size + order > drawn:
                    continue
                index = 0
                for token in text[begin : begin + order]:
                    index = index * VOCAB + token
                values.append(float(expected_brier(joint, torch.tensor(index))))
        assert got.brier[order - 1].value == pytest.approx(100 * sum(values) / len(values))


@pytest.mark.parametrize("call", [
    lambda rows, s: evaluate(model_of(4), rows, s, seed=0),
    lambda rows, s: evaluate_unigram(torch.full((4,), 0.25), rows, s, seed=0),
])  # fmt: skip
def test_too_little_text_is_named(call):
    with pytest.raises(ValueError, match=r"min_context must be below the 5 positions.*got 5"):
        call(rows_of(4, [20, 20], [0, 1]), settings(min_context=5))
    message = re.escape("at least 2 rows must hold text after min_context = 2 chunks")
    for sizes, seen in (([8, 8], 0), ([20, 8], 1)):
        with pytest.raises(ValueError, match=f"{message}.*{seen} of 2 do"):
            call(rows_of(4, sizes, [0, 1]), settings())


def test_the_default_protocol_is_pinned():
    """Another one gives other numbers: change it with a note, or not at all."""
    assert vars(EvaluationSettings()) == {
        "rows": 128, "draws": 8, "min_context": 16, "bootstrap": 1000,
        "continued": 32,
    }  # fmt: skip
    # Rows of 64 chunks in all comparisons: 16 to 63 of them are read before a scored one.
    assert yaml.safe_load((PRESETS / "base.yaml").read_text())["positions"] == 64


@pytest.mark.parametrize(
    "name, least",
    [("rows", 2), ("draws", 2), ("min_context", 1), ("bootstrap", 10), ("continued", 0)],
)
def test_bad_settings_are_named(name, least):
    with pytest.raises(ValueError, match=f"{name} must be at least {least}; got {least - 1}"):
        settings(**{name: least - 1})


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 5])
def test_no_position_is_reserved_that_is_not_read(chunk_size, monkeypatch):
    """The last chunk of a branch is drawn, and not read."""
    used, capacities = [], []
    advance, new_cache = KVCache.advance, TransformerBackbone.new_cache
    monkeypatch.setattr(
        KVCache, "advance", lambda cache, new: (advance(cache, new), used.append(cache.longest))
    )
    monkeypatch.setattr(
        TransformerBackbone,
        "new_cache",
        lambda *a: capacities.append(a[2]) or new_cache(*a),
    )
    rows = rows_of(chunk_size, [24, 24], [0, 1])
    evaluate(model_of(chunk_size), rows, settings(), seed=0)
    assert set(capacities) == {max(used)}
    assert max(used) == positions_read(rows.batch.tokens.shape[1], chunk_size)
