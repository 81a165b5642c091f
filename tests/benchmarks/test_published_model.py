"""The literal published model computes what calmkit's parts compute, given the same weights."""

import math

import pytest
import torch
from torch.testing import assert_close

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.chunking import ChunkBatch
from calmkit.heads import EnergyHead
from calmkit.models import CALM, ChunkEmbedding

TOKENS = torch.randint(11, (2, 5, 3), generator=torch.Generator().manual_seed(0))
ROWS = ChunkBatch(TOKENS, torch.ones_like(TOKENS, dtype=torch.bool), ((5,), (5,)))


@pytest.fixture
def published(load):
    """The literal model, its module and calmkit's own model, with equal weights."""
    module = load("published_model")
    torch.manual_seed(0)
    ours = MLPAutoencoder(3, 11, 4, width=6)
    theirs = module.PublishedAutoencoder(3, 11, 4, width=6, inner=16).copy(ours)
    head = EnergyHead(8, 4, width=10, depth=2, noise_size=5, num_samples=3)
    model = module.PublishedModel(theirs, head, depth=2, heads=2, inner=24)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    copied = CALM(
        autoencoder=ours,
        input_encoder=ChunkEmbedding(11, 3, 8),
        backbone=TransformerBackbone(8, depth=2, heads=2),
        head=EnergyHead(8, 4, width=10, depth=2, noise_size=5, num_samples=3),
    )
    model.give_weights(copied)
    return module, model, copied


def test_states_and_samples_are_equal(published):
    _, theirs, ours = published
    states = ours.hidden_states(ROWS)
    assert_close(theirs.states(TOKENS), states)
    noise = torch.rand(7, 2, 5, 5)
    assert_close(theirs.head.sample_from(states, noise), ours.head.sample_from(states, noise))


def test_autoencoders_are_equal(published):
    _, theirs, ours = published
    mean, std = theirs.autoencoder.encode(TOKENS)
    posterior = ours.autoencoder.encode(TOKENS)
    assert_close((mean, std), (posterior.mean, posterior.std))
    assert_close(theirs.autoencoder.decode(mean), ours.autoencoder.decode(mean))


def test_losses_are_equal_in_expectation(published):
    _, theirs, ours = published
    with torch.no_grad():
        torch.manual_seed(1)
        losses = torch.stack([theirs.loss(TOKENS) for _ in range(400)])
        scores = torch.stack([2 * ours.loss(ROWS).total for _ in range(400)])
    error = math.hypot(float(losses.std()), float(scores.std())) / 20
    assert abs(float(losses.mean() - scores.mean())) < 5 * error < 0.05 * float(scores.mean())


def test_autoencoder_loss_is_the_formula(published):
    _, theirs, _ = published
    autoencoder = theirs.autoencoder.train()
    torch.manual_seed(2)
    loss = autoencoder.loss(TOKENS)
    torch.manual_seed(2)
    kept = torch.rand(TOKENS.shape) >= 0.15
    mean, std = autoencoder.encode(TOKENS * kept)
    latents = torch.nn.functional.dropout(mean + std * torch.randn_like(mean), 0.15)
    log_p = autoencoder.decode(latents).log_softmax(-1)
    total = 0.0
    for row in range(2):
        for place in range(5):
            nats = [-log_p[row, place, k, TOKENS[row, place, k]] for k in range(3)]
            m, s = mean[row, place], std[row, place]
            kl = (m**2 + s**2 - 1) / 2 - s.log()
            total += (sum(nats) + 1e-3 * kl.clamp(min=0.5).sum()) / 10
    assert_close(loss, total)


def test_published_weights_leave_the_autoencoder(published):
    module, theirs, _ = published
    before = theirs.autoencoder.squeeze.weight.clone()
    module.initialize(theirs, but=theirs.autoencoder)
    assert_close(theirs.autoencoder.squeeze.weight, before, rtol=0, atol=0)
    assert not theirs.head.output[2].weight.any()
    assert_close(theirs.embedding.weight.std(), torch.tensor(0.02), rtol=0.3, atol=0)


def test_a_step_warms_up_and_learns(published):
    module, theirs, _ = published
    step = module.PublishedStep(theirs, lambda step: ROWS, rate=1e-3, warmup=4)
    before = theirs.embedding.weight.detach().clone()
    step()
    moved = (theirs.embedding.weight.detach() - before).abs().max()
    assert 0 < float(moved) < 3e-4 and step.steps == 1  # a fourth of the rate
