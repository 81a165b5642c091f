"""The command at a size that takes a moment, and each of its measures on laws that are known."""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import GaussianHead
from calmkit.metrics import BrierLMResult, Estimate, NgramScore, brier_ngram
from calmkit.models import CALM, ChunkEmbedding, TokenLM

ORDERS = (1, 2, 3, 4)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEADS = ["EnergyHead", "EnergyHead, N = 2", "GaussianHead"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sizes = "--chunks 1 2 --steps 30 --checkpoints 3 --autoencoder-steps 150 --batch 8 --length 16"
    sizes += " --context 8 --rows 8 --draws 300 --branches 40 --states 3 --vocab 4"
    sizes += " --hidden 16 --latent 8"
    command = [sys.executable, BENCHMARKS / "known_truth.py", *sizes.split(), "--heads", *HEADS]
    command += ["--json", folder / "numbers.json", "--plot", folder / "plot.png"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


@pytest.fixture
def known(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("known_truth")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("known_truth_report")


@pytest.fixture
def build_world(known):
    """A world of 40 short texts, of a chunk size."""

    def build(size, **changes):
        args = argparse.Namespace(
            seed=0, length=8, context=4, rows=40, draws=700, brier_draws=4, branches=100
        )
        vars(args).update(changes)
        language = known.SyntheticLanguage.seeded(1, states=3, vocab=4)
        return known.World(args, language, size)

    return build


def results(written):
    return json.loads((written[1] / "numbers.json").read_text())["results"]


def test_prints_tables_and_writes_the_same_json(written):
    printed, folder = written
    text = (folder / "numbers.json").read_text()
    assert printed.endswith(text)
    assert "Spearman" in printed and printed.count("perfect head") == 2 + text.count(
        "perfect head"
    )
    found = json.loads(text)
    assert set(found) == {"device", "torch", "python", "machine", "threads", "results"}
    assert found["results"]["setting"]["vocab"] == 4
    low, high = found["results"]["entropy_rate"]
    assert 0 < low < high < math.log(4)
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_every_model_is_measured_at_every_checkpoint(written):
    worlds = results(written)["worlds"]
    assert [world["chunk"] for world in worlds] == [1, 2]
    for world in worlds:
        models = [*HEADS, *(["TokenLM"] if world["chunk"] == 1 else [])]
        assert [(row["model"], row.get("step")) for row in world["rows"]] == [
            ("truth", None),
            ("perfect head", None),
            *product(models, (10, 20, 30)),
        ]
        assert 0.9 < world["autoencoder_accuracy"] <= 1
        for row in world["rows"]:
            assert row["kl"] == pytest.approx(world["chunk"] * row["excess_cross_entropy"])
            excess = row["cross_entropy"] - world["entropy"]
            assert excess == pytest.approx(row["excess_cross_entropy"])
        best = math.prod(world["brier_optimum"]) ** (1 / 4)
        assert world["brier_lm_optimum"] == pytest.approx(best)
        for row in world["rows"][2:]:
            scores = [row[f"brier_{order}"] for order in ORDERS]
            brier_lm = math.prod(scores) ** (1 / 4) if min(scores) > 0 else 0
            assert row["brier_lm"] == pytest.approx(brier_lm)
            assert row["share_of_optimum"] == pytest.approx(brier_lm / best)
            expected = row["expected_brier_lm"] / world["expected_brier_lm_optimum"]
            assert row["expected_share"] == pytest.approx(expected)


def test_models_are_farther_from_the_truth_than_its_draws_and_come_nearer(written):
    for world in results(written)["worlds"]:
        truth, perfect, *models = world["rows"]
        for name in ("total_variation", "kl", "brier_regret"):
            assert truth[name] <= perfect[name]
            assert all(row[name] > truth[name] for row in models)
        for name in {row["model"] for row in models}:
            first, *_, last = [row for row in models if row["model"] == name]
            assert last["kl"] < first["kl"]


def test_correlations_are_of_the_rows(written, report):
    found = results(written)
    assert set(found["correlations"]) == {"K = 1", "K = 2", "all"}
    counted = {
        name: [values[key] for key in ("rows", "ends", "energy")]
        for name, values in found["correlations"].items()
    }
    assert counted == {"K = 1": [12, 4, 6], "K = 2": [9, 3, 6], "all": [21, 7, 12]}
    assert report.correlations(found["worlds"]) == found["correlations"]
    # Of the ends and of the energy-trained, chosen here by their names.
    rows = found["worlds"][0]["rows"][2:]
    ends = [row for row in rows if row["step"] == 30]
    energy = [row for row in rows if row["model"].startswith("Energy")]
    for score, values in report.SCORES.items():
        shown = found["correlations"]["K = 1"][score]
        for name, chosen, distance in (
            ("total variation", rows, "total_variation"),
            ("KL", rows, "kl"),
            ("total variation, ends", ends, "total_variation"),
            ("cross entropy, energy", energy, "cross_entropy"),
        ):
            signed = [values * row[score] for row in chosen]
            less = [-row[distance] for row in chosen]
            assert shown[name] == pytest.approx(report.spearmanr(signed, less).statistic)


def test_correlations_have_the_sign_of_agreement(report):
    def rows(scores, distances):
        names = ("share_of_optimum", "kl")
        return [
            dict(zip(names, pair, strict=True)) for pair in zip(scores, distances, strict=True)
        ]

    same, opposite = [0.1, 0.2, 0.9], [0.9, 0.2, 0.1]
    assert report.correlate(rows(same, opposite), "share_of_optimum", "kl") == pytest.approx(1)
    assert report.correlate(rows(same, same), "share_of_optimum", "kl") == pytest.approx(-1)
    assert report.correlate(rows(same, same), "kl", "kl") == pytest.approx(1)
    pearson = report.correlate(rows(same, [3, 2, 1]), "share_of_optimum", "kl", report.pearsonr)
    assert pearson == pytest.approx(0.8 / math.sqrt(2 * 0.38))
    assert report.correlate(rows([1, 1, 1], same), "share_of_optimum", "kl") is None
    assert report.correlate(rows([1, 2], [2, 1]), "share_of_optimum", "kl") is None


def test_distances_are_their_formulas(known):
    law = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
    numbers = torch.tensor([[0, 3], [1, 3], [0, 2], [2, 3], [0, 0]])
    wanted = {"total_variation": 0.0, "kl": 0.0, "brier_regret": 0.0}
    for text, q in enumerate(law.tolist()):
        drawn = numbers[:, text].tolist()
        for chunk, truth in enumerate(q):
            n = drawn.count(chunk)
            wanted["total_variation"] += abs(n / 5 - truth) / 2 / 2
            if truth > 0:
                wanted["kl"] += truth * math.log(truth / ((n + 0.5) / (5 + 2))) / 2
            pairs = sum(a == b == chunk for i, a in enumerate(drawn) for b in drawn[:i])
            wanted["brier_regret"] += 100 * (pairs / 10 - 2 * n / 5 * truth + truth**2) / 2
    assert known.distances(numbers, law) == pytest.approx(wanted, rel=1e-12)


def test_brier_regret_is_unbiased_and_total_variation_is_too_high(known):
    law, model = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([0.2, 0.5, 0.3])
    expected = {"total_variation": 0.0, "brier_regret": 0.0}
    for draws in product(range(3), repeat=3):
        found = known.distances(torch.tensor(draws)[:, None], law)
        for name in expected:
            expected[name] += float(model[list(draws)].prod()) * found[name]
    regret = 100 * float((law - model).square().sum())
    assert expected["brier_regret"] == pytest.approx(regret, rel=1e-12)
    assert expected["total_variation"] > float((law - model).abs().sum()) / 2


@pytest.mark.parametrize("size", [1, 2])
def test_draws_of_the_truth_reach_the_floor(build_world, size):
    world = build_world(size)
    # E|n / m - q| with a normal law in place of the binomial one.
    floor = float((2 * world.law * (1 - world.law) / (math.pi * 700)).sqrt().sum(-1).mean()) / 2
    found = world.measure_draws(world.true_chunks())
    # Measured: 0.94 and 1.00 of it, and 0.94 to 1.13 over other seeds.
    assert found["total_variation"] == pytest.approx(floor, rel=0.15)
    # Measured: -0.009 and 0.004; that of laws of other texts is 20 and 12.
    assert abs(found["brier_regret"]) < 0.1


def measured_oracle(known, build_world, monkeypatch, size):
    """What a model that knows the law is found to be, drawn from or by its probabilities."""
    world = build_world(size)
    language = world.language

    def hidden_states(batch):
        return language.beliefs(batch.tokens.flatten(1))[:, size::size]

    def draws(states, generator):
        law = language.chunk_law(states, size)

        def draw(count):
            number = torch.multinomial(law, count, replacement=True, generator=generator).T
            return number[..., None] // 4 ** torch.arange(size).flip(0) % 4

        return draw

    rate = Estimate(0.0, 0.0)
    scores = [NgramScore(Estimate(10.0 * order, 1.0), rate, rate) for order in ORDERS]
    brier = SimpleNamespace(brier=BrierLMResult(Estimate(20.0, 1.5), tuple(scores), ()))
    for name in ("evaluate", "evaluate_softmax"):
        monkeypatch.setattr(known, name, lambda model, rows, settings, seed: brier)
    monkeypatch.setattr(known.World, "measure_expected", lambda self, model: {})
    model = SimpleNamespace(
        hidden_states=hidden_states,
        draws=draws,
        logits=lambda states: language.chunk_law(states, 1).log(),
    )
    return world, model


@pytest.mark.parametrize("size", [1, 2])
def test_a_model_that_knows_the_law_is_at_the_floor(known, build_world, monkeypatch, size):
    world, model = measured_oracle(known, build_world, monkeypatch, size)
    found = world.measure_calm(model)
    floor = world.measure_draws(world.true_chunks())
    assert found["total_variation"] == pytest.approx(floor["total_variation"], rel=0.2)
    # Laws after other texts, or one chunk off, are farther away.
    shifted = known.distances(known.chunk_numbers(world.true_chunks(), 4), world.law.roll(1, 0))
    assert shifted["total_variation"] > 3 * floor["total_variation"]
    assert found["brier_lm"] == 20.0 and found["brier_3"] == 30.0
    assert found["share_of_optimum"] == pytest.approx(20 / world.optimum)
    assert found["brier_lm_standard_error"] == 1.5


def test_probabilities_are_measured_exactly(known, build_world, monkeypatch):
    world, model = measured_oracle(known, build_world, monkeypatch, 1)
    found = world.measure_softmax(model)
    for name in ("total_variation", "kl", "brier_regret", "excess_cross_entropy"):
        assert found[name] == pytest.approx(0, abs=1e-12)
    level = TokenLM(4, backbone=TransformerBackbone(8, depth=1, heads=2)).requires_grad_(False)
    level.output.weight.zero_()
    found = world.measure_softmax(level)
    q = world.law
    assert found["total_variation"] == pytest.approx(float((q - 0.25).abs().sum(-1).mean() / 2))
    assert found["cross_entropy"] == pytest.approx(math.log(4))
    regret = 100 * float((q - 0.25).square().sum(-1).mean())
    assert found["brier_regret"] == pytest.approx(regret)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_expected_brier_is_that_of_all_that_may_come(known, build_world, monkeypatch, size):
    world = build_world(size, rows=3, branches=100)
    law = world.language.chunk_law(world.language.beliefs(world.past.flatten(1))[:, -1], 4)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.multinomial(law, 100, replacement=True, generator=generator).T
    tokens = numbers[..., None] // torch.tensor([64, 16, 4, 1]) % 4
    tokens[:10, :, 2] = 0  # not the truth's own draws
    monkeypatch.setattr(known, "continue_texts", lambda *args: tokens)
    scores, bests = [], []
    for order in ORDERS:
        score, optimum = [], []
        for start in range(min(size, 5 - order)):
            windows = tokens[..., start : start + order]
            for text in range(3):
                table = law[text].view(4**start, 4**order, -1).sum((0, 2))
                outcomes = torch.tensor(list(product(range(4), repeat=order)))
                expected = sum(
                    q * brier_ngram(windows[:, text], y, order)
                    for q, y in zip(table, outcomes, strict=True)
                )
                score.append(float(expected))
                optimum.append(float(table.square().sum()))
        scores.append(100 * sum(score) / len(score))
        bests.append(100 * sum(optimum) / len(optimum))
    found = world.measure_expected(None)
    assert min(scores) > 0
    brier_lm, best = math.prod(scores) ** 0.25, math.prod(bests) ** 0.25
    assert found["expected_brier_lm"] == pytest.approx(brier_lm, rel=1e-9)
    assert world.expected_optimum == pytest.approx(best, rel=1e-9)
    assert found["expected_share"] == pytest.approx(brier_lm / best)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_texts_are_continued_from_their_ends(known, size):
    """A model that draws with certainty is followed from the whole text, without a cache."""
    torch.manual_seed(1)
    model = calm(size)
    model.requires_grad_(False).eval()
    past = torch.randint(4, (12, 2, size))
    generator = torch.Generator().manual_seed(0)
    found = known.continue_texts(model, past, 2, generator)
    assert found.shape == (2, 12, 4)
    for branch in found:
        for text, drawn in zip(past, branch, strict=True):
            grown = text
            for chunk in drawn.view(-1, size):
                batch = ChunkBatch(
                    grown[None], torch.ones_like(grown[None]).bool(), ((len(grown),),)
                )
                state = model.hidden_states(batch)[:, -1]
                assert torch.equal(model.draws(state, generator)(1)[0, 0], chunk)
                grown = torch.cat([grown, chunk[None]])
    assert len({tuple(text) for text in found[0].tolist()}) > 1


def calm(size):
    """A small model whose head has hardly any spread."""
    head = GaussianHead(8, 6, width=8, depth=1, std=1e-6)
    for parameter in head.parameters():
        parameter.data.normal_()
    return CALM(
        autoencoder=MLPAutoencoder(size, 4, 6, width=8),
        input_encoder=ChunkEmbedding(4, size, 8),
        backbone=TransformerBackbone(8, depth=1, heads=2),
        head=head,
    )


def test_all_draws_are_counted_also_those_after_the_last_full_part(
    known, build_world, monkeypatch
):
    world, model = measured_oracle(known, build_world, monkeypatch, 1)
    counted = []
    monkeypatch.setattr(
        known, "distances", lambda numbers, law: counted.append(numbers.shape) or {"kl": 0.0}
    )
    world.measure_calm(model)
    assert counted == [(700, 40)]


def test_the_truth_is_that_before_the_last_chunk_and_the_optimum_that_of_the_places(
    known, build_world
):
    world = build_world(2)
    tokens = world.rows.batch.tokens
    belief = world.language.beliefs(tokens.flatten(1)[:, :6])[:, -1]
    assert_close(world.law, world.language.chunk_law(belief, 2))
    assert world.settings.min_context == 2
    assert world.optimum == pytest.approx(math.prod(world.optimal_brier) ** (1 / 4))
    # With one place to score, the first two tokens of a chunk: from its own belief alone.
    last = build_world(2, context=6)
    first, second = belief, belief @ world.language.transition
    alone = [world.language.collision(b, 1).mean() for b in (first, second)]
    assert last.optimal_brier[0] == pytest.approx(100 * float(sum(alone)) / 2)


def test_texts_of_each_step_are_new_and_not_drawn_as_the_steps_noise(known):
    args = argparse.Namespace(seed=0, length=8)
    language = known.SyntheticLanguage.seeded(0)

    def text(step):
        return known.draw_batch(args, language, 4, step, 5)

    assert text(3).tokens.shape == (5, 2, 4) and text(3).lengths == ((2,),) * 5
    assert torch.equal(text(3).tokens, text(3).tokens)
    assert not torch.equal(text(3).tokens, text(4).tokens)
    noise = language.sample(5, 8, known.step_generator(0, 3))
    assert not torch.equal(text(3).tokens.flatten(1), noise)


def test_every_name_builds_a_head_of_the_size_asked_for(known):
    args = argparse.Namespace(hidden=16, latent=8)
    for name in [*known.every_head(), *known.ENERGY]:
        head = known.build_head(args, name)
        assert (head.cond_size, head.latent_size) == (16, 8)
    assert known.build_head(args, "EnergyHead, N = 2").num_samples == 2
    assert known.build_head(args, "EnergyHead, alpha = 0.5").rule.alpha == 0.5
    assert known.build_head(args, "EnergyHead").cond_embedding.out_features == 16


def test_lengths_that_do_not_fit_are_refused(known, capsys):
    with pytest.raises(SystemExit):
        known.main(["--length", "30"])
    assert "--length must be a multiple of each of --chunks [1, 2, 4]." in capsys.readouterr().err
