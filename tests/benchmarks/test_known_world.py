"""The truth about texts, and what models, drawn or computed, are found to be beside it."""

import argparse
import math
from itertools import product
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


@pytest.fixture
def worlds(load):
    return load("known_world")


@pytest.fixture
def build_world(worlds):
    """A world of 40 short texts, of a chunk size."""

    def build(size, **changes):
        args = argparse.Namespace(
            seed=0, length=8, context=4, rows=40, draws=700, brier_draws=4, branches=100
        )
        vars(args).update(changes)
        language = worlds.SyntheticLanguage.seeded(1, states=3, vocab=4)
        return worlds.World(args, language, size)

    return build


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


def measured_oracle(worlds, build_world, monkeypatch, size):
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
        monkeypatch.setattr(worlds, name, lambda model, rows, settings, seed: brier)
    monkeypatch.setattr(worlds.World, "measure_expected", lambda self, model: {})
    model = SimpleNamespace(
        hidden_states=hidden_states,
        draws=draws,
        logits=lambda states: language.chunk_law(states, 1).log(),
    )
    return world, model


@pytest.mark.parametrize("size", [1, 2])
def test_a_model_that_knows_the_law_is_at_the_floor(worlds, build_world, monkeypatch, size):
    world, model = measured_oracle(worlds, build_world, monkeypatch, size)
    found = world.measure_calm(model)
    floor = world.measure_draws(world.true_chunks())
    assert found["total_variation"] == pytest.approx(floor["total_variation"], rel=0.2)
    # Laws after other texts, or one chunk off, are farther away.
    shifted = worlds.distances(worlds.chunk_numbers(world.true_chunks(), 4), world.law.roll(1, 0))
    assert shifted["total_variation"] > 3 * floor["total_variation"]
    assert found["brier_lm"] == 20.0 and found["brier_3"] == 30.0
    assert found["share_of_optimum"] == pytest.approx(20 / world.optimum)
    assert found["brier_lm_standard_error"] == 1.5


def test_probabilities_are_measured_exactly(worlds, build_world, monkeypatch):
    world, model = measured_oracle(worlds, build_world, monkeypatch, 1)
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
def test_expected_brier_is_that_of_all_that_may_come(worlds, build_world, monkeypatch, size):
    world = build_world(size, rows=3, branches=100)
    law = world.language.chunk_law(world.language.beliefs(world.past.flatten(1))[:, -1], 4)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.multinomial(law, 100, replacement=True, generator=generator).T
    tokens = numbers[..., None] // torch.tensor([64, 16, 4, 1]) % 4
    tokens[:10, :, 2] = 0  # not the truth's own draws
    monkeypatch.setattr(worlds, "continue_texts", lambda *args: tokens)
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
def test_texts_are_continued_from_their_ends(worlds, size):
    """A model that draws with certainty is followed from the whole text, without a cache."""
    torch.manual_seed(1)
    model = calm(size)
    model.requires_grad_(False).eval()
    past = torch.randint(4, (12, 2, size))
    generator = torch.Generator().manual_seed(0)
    found = worlds.continue_texts(model, past, 2, generator)
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
    worlds, build_world, monkeypatch
):
    world, model = measured_oracle(worlds, build_world, monkeypatch, 1)
    counted = []
    monkeypatch.setattr(
        worlds, "distances", lambda numbers, law: counted.append(numbers.shape) or {"kl": 0.0}
    )
    world.measure_calm(model)
    assert counted == [(700, 40)]


def test_the_truth_is_that_before_the_last_chunk_and_the_optimum_that_of_the_places(
    worlds, build_world
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


def test_texts_of_each_step_are_new_and_not_drawn_as_the_steps_noise(worlds):
    args = argparse.Namespace(seed=0, length=8)
    language = worlds.SyntheticLanguage.seeded(0)

    def text(step):
        return worlds.draw_batch(args, language, 4, step, texts=5)

    assert text(3).tokens.shape == (5, 2, 4) and text(3).lengths == ((2,),) * 5
    assert torch.equal(text(3).tokens, text(3).tokens)
    assert not torch.equal(text(3).tokens, text(4).tokens)
    noise = language.sample(5, 8, worlds.step_generator(0, 3))
    assert not torch.equal(text(3).tokens.flatten(1), noise)
