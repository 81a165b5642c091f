"""CALM's loss on prompt and response pairs: only response chunks count, each as if alone."""

import pytest
import torch
from calm_models import energy_head, tiny

from calmkit.chunking import ChunkBatch, chunk_pair

PAIRS = [
    ([1, 2, 3, 4], [5, 6, 1]),
    ([2], [3, 3, 3, 3, 3, 3, 3]),
    ([6, 5, 4, 3, 2, 1, 2], [1]),
]


def laid(prompt, response, chunk_size=3):
    return chunk_pair(prompt, response, chunk_size, fill_id=0, end_id=0)


def packed(pairs):
    """All pairs in one row."""
    parts = [laid(*pair) for pair in pairs]
    tokens, real, scored = (torch.cat(x)[None] for x in zip(*parts, strict=True))
    return ChunkBatch(tokens, real, (tuple(len(part[0]) for part in parts),), scored)


def each_response_chunk_alone(model, pairs):
    """A loop: the state after a prompt and what came of its response, for each chunk of it."""
    losses = []
    for prompt, response in pairs:
        tokens, real, scored = laid(prompt, response)
        for place in scored.nonzero().flatten().tolist():
            states = model.backbone(model.input_encoder(tokens[None, :place], real[None, :place]))
            target = model.autoencoder.encode(tokens[place])
            losses.append((model.head.map(states[0, -1]) - target.mean).square().sum())
    return torch.stack(losses)


def test_the_loss_is_that_of_each_response_chunk_given_what_is_before_it():
    model, batch = tiny(), packed(PAIRS)
    loss = model.loss(batch)
    want = each_response_chunk_alone(model, PAIRS)
    assert loss.counted.sum() == len(want) == 2 + 3 + 1
    torch.testing.assert_close(loss.per_position[loss.counted], want)
    torch.testing.assert_close(loss.total, want.mean())


def test_gradients_are_those_of_the_responses_alone():
    model, batch = tiny(), packed(PAIRS)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    want = torch.autograd.grad(
        each_response_chunk_alone(model, PAIRS).mean(), list(trained.values()), allow_unused=True
    )
    got = torch.autograd.grad(model.loss(batch).total, list(trained.values()), allow_unused=True)
    for name, one, other in zip(trained, got, want, strict=True):
        assert (one is None) == (other is None), name
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


def test_what_a_prompt_asks_for_does_not_reach_the_loss():
    """As a target, a prompt chunk could only enter through its latent."""
    model, batch = tiny(), packed(PAIRS[:1])
    latents = []
    encode_rows = model.autoencoder.encode_rows

    def watched(batch):
        target = encode_rows(batch)
        target.mean.requires_grad_(True)
        latents.append(target.mean)
        return target

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.autoencoder, "encode_rows", watched)
        model.loss(batch).total.backward()
    (latents,) = latents
    assert batch.scored[0].tolist() == [False, False, True, True]
    moved = latents.grad.abs().sum(-1)[0] > 0
    assert moved.tolist() == [False, False, True, True]


def test_nothing_scored_is_a_loss_of_zero_with_zero_gradients():
    model, batch = tiny(build_head=energy_head), packed(PAIRS)
    silent = ChunkBatch(batch.tokens, batch.real, batch.lengths, torch.zeros_like(batch.scored))
    loss = model.loss(silent, torch.Generator().manual_seed(0))
    assert loss.total == 0 and not loss.counted.any()
    loss.total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and (p.grad == 0).all() for p in trained)


def test_all_scored_is_the_loss_without_a_mask():
    model, batch = tiny(), packed(PAIRS)
    every = ChunkBatch(batch.tokens, batch.real, batch.lengths, torch.ones_like(batch.scored))
    plain = ChunkBatch(batch.tokens, batch.real, batch.lengths)
    torch.testing.assert_close(model.loss(every).total, model.loss(plain).total)
    assert model.loss(plain).counted.sum() > model.loss(batch).counted.sum()
