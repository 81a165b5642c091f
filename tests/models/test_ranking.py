"""Ranking continuations: scores against enumeration, errors against repetition."""

import pytest
import torch
from calm_models import LATENT, VOCAB, energy_head, tiny
from seeding import seeded
from torch import nn

from calmkit.autoencoders import ContextualAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch, chunk_prompts
from calmkit.heads import Head
from calmkit.models import TokenLM, rank
from calmkit.scoring import EnergyScore, brier_score


class CoinHead(Head):
    """Draws one of two latents, which the test's autoencoder decodes to different chunks."""

    def __init__(self, cond_size, latent_size):
        super().__init__(cond_size, latent_size)
        self.places = nn.Parameter(torch.randn(2, latent_size, generator=seeded(3)) * 3)

    @property
    def evaluations_per_sample(self):
        return 1

    def loss(self, cond, target, generator=None):
        raise NotImplementedError

    def sample(self, cond, num_samples, generator=None):
        side = torch.rand(num_samples, *cond.shape[:-1], generator=generator) < 0.7
        return self.places[side.long()]


def coin():
    """A model that writes chunk a with probability 0.7 and b with 0.3, whatever came before."""
    model = tiny(build_head=CoinHead)
    b, a = model.autoencoder.decode_tokens(model.head.places).tolist()
    assert a != b
    return model, a, b


def test_scores_are_brier_scores():
    """1 - 2 p + (0.49 + 0.09): 0.18 for a, 0.98 for b, 1.58 for what is never drawn."""
    model, a, b = coin()
    never = [VOCAB - 1 - token for token in a]
    assert never not in (a, b)
    ranked = rank(model, [1, 2], [b, never, a, a + a, a + b], num_samples=4000, generator=seeded())
    want = {0: 0.98, 1: 1.58, 2: 0.18, 3: 0.18, 4: 0.58}
    for one in ranked:
        assert abs(one.score - want[one.index]) < 5 * one.standard_error
        assert one.standard_error < 0.03
    assert {one.index: one.chunks for one in ranked} == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2}
    assert [one.index for one in ranked][2:] == [4, 0, 1]
    assert [one.score for one in ranked] == sorted(one.score for one in ranked)


def test_a_chunk_that_is_cut_short_is_compared_as_far_as_it_goes():
    model, a, b = coin()
    place = next(i for i in range(3) if a[i] != b[i])
    (one,) = rank(model, [1], [a[: place + 1]], num_samples=4000, generator=seeded())
    assert abs(one.score - 0.18) < 5 * one.standard_error
    if place > 0:
        (common,) = rank(model, [1], [a[:place]], num_samples=64, generator=seeded())
        assert common.score == pytest.approx(0.0, abs=1e-12)


def test_the_standard_error_is_the_spread_of_repetitions():
    model, a, _ = coin()
    scores, errors = [], []
    for seed in range(200):
        (one,) = rank(model, [1, 2], [a + a], num_samples=64, generator=seeded(seed))
        scores.append(one.score)
        errors.append(one.standard_error)
    spread = torch.tensor(scores).std()
    # A standard error from 8 groups, averaged over 200 repetitions; groups are slightly worse
    # than all pairs, whose mean they share.
    assert 0.85 < torch.tensor(errors).square().mean().sqrt() / spread < 1.15


@pytest.mark.parametrize("prompt", [[1], [1, 2, 3], [1, 2, 3, 4]])
def test_scores_are_those_of_a_literal_loop(prompt):
    """Each chunk is drawn after the true text before it, read anew without a cache."""
    model = tiny(build_head=energy_head)
    continuation = [5, 6, 0, 1, 2, 3]
    (got,) = rank(model, prompt, [continuation], num_samples=16, generator=seeded())
    states = []
    for chunk in range(2):
        text = [*prompt, *continuation[: 3 * chunk]]
        tokens, real, _ = chunk_prompts([text], 3, fill_id=0)
        states.append(model.backbone(model.input_encoder(tokens, real))[0, -1])
    draws = model.sample_chunks(torch.stack(states), 16, seeded())
    target = torch.tensor(continuation).view(2, 3)
    want = torch.stack([brier_score(part, target) for part in draws.chunk(8)]).mean()
    assert got.score == pytest.approx(float(want))


@torch.no_grad()
def test_a_rule_scores_latents():
    model = tiny(build_head=energy_head)
    (got,) = rank(model, [1], [[1, 2, 3]], rule=EnergyScore(), num_samples=16, generator=seeded())
    tokens, real, _ = chunk_prompts([[1]], 3, fill_id=0)
    state = model.backbone(model.input_encoder(tokens, real))[0]
    latents = model.head.sample(state, 16, seeded())
    target = model.autoencoder.encode(torch.tensor([[1, 2, 3]]))
    want = torch.stack([EnergyScore().score(x, target) for x in latents.chunk(8)]).mean()
    assert got.score == pytest.approx(float(want))


@torch.no_grad()
def test_latents_are_those_of_chunks_in_their_row():
    """With an autoencoder that reads neighbours, the prompt moves the latents asked for."""
    autoencoder = ContextualAutoencoder(3, VOCAB, LATENT, width=8, depth=1, heads=2)
    model = tiny(build_head=energy_head, autoencoder=autoencoder)
    prompt, continuation = [1, 4, 2], [5, 6, 0, 1, 2, 3]
    rule = EnergyScore()
    (got,) = rank(model, prompt, [continuation], rule=rule, num_samples=16, generator=seeded())
    tokens = torch.tensor([*prompt, *continuation]).view(1, 3, 3)
    row = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((3,),))
    latents = model.head.sample(model.hidden_states(row)[0, :2], 16, seeded())
    target = autoencoder.encode_rows(row)[0, 1:]
    want = torch.stack([rule.score(x, target) for x in latents.chunk(8)]).mean()
    alone = torch.stack(
        [rule.score(x, autoencoder.encode(tokens[0, 1:])) for x in latents.chunk(8)]
    ).mean()
    assert got.score == pytest.approx(float(want)) != pytest.approx(float(alone))


def softmax_model():
    torch.manual_seed(1)
    model = TokenLM(VOCAB, backbone=TransformerBackbone(8, depth=1, heads=2)).eval()
    nn.init.normal_(model.output.weight)
    return model


@torch.no_grad()
def test_a_softmax_model_is_scored_from_its_samples_alike():
    model, tokens = softmax_model(), [1, 2, 5, 0]
    row = torch.tensor(tokens).view(1, 4, 1)
    p = model.logits(model.hidden_states(ChunkBatch(row, row >= 0, ((4,),))))[0].softmax(dim=-1)
    want = sum(1 - 2 * p[t, tokens[t + 1]] + p[t].square().sum() for t in (1, 2)) / 2
    (one,) = rank(model, tokens[:2], [tokens[2:]], num_samples=8000, generator=seeded())
    assert abs(one.score - want) < 5 * one.standard_error < 0.1
    assert one.chunks == 2
    with pytest.raises(ValueError, match=r"model must be a CALM for a rule .*; got a TokenLM"):
        rank(model, [1], [[2]], rule=EnergyScore())


def test_modes_are_restored():
    model = tiny().train()
    rank(model, [1], [[2]], num_samples=16)
    assert model.head.training and not model.autoencoder.training


@pytest.mark.parametrize(
    ("prompt", "continuations", "options", "match"),
    [
        ([], [[1]], {}, "prompt must hold at least one token"),
        ([1], [[1], []], {}, r"continuations\[1\] must hold at least one token"),
        ([1], [[VOCAB]], {}, r"token ids in \[0, 7\); got 7"),
        ([1], [[1]], {"num_samples": 12}, "multiple of 8.* at least 16; got 12"),
        ([1], [[1]], {"num_samples": 8}, "at least 16; got 8"),
        ([1], [[1, 2]], {"rule": EnergyScore()}, "whole chunks of 3 tokens.* one has 2 tokens"),
    ],
)
def test_bad_arguments_are_named(prompt, continuations, options, match):
    with pytest.raises(ValueError, match=match):
        rank(tiny(), prompt, continuations, **options)
