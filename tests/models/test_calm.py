"""CALM's loss: which chunks count, packing, batches without anything to predict, named errors."""

import pytest
import torch
from calm_models import HIDDEN, LATENT, VOCAB, LinearHead, energy_head, tiny

from calmkit.chunking import ChunkBatch
from calmkit.models import ChunkEmbedding


def tokens_of(*shape, seed=0):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def whole(tokens, lengths):
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths)


def test_loss_is_a_loop_over_positions():
    model, tokens = tiny(), tokens_of(2, 4, 3)
    batch = whole(tokens, ((4,), (4,)))
    loss = model.loss(batch)
    states = model.backbone(model.input_encoder(tokens, batch.real))
    want = torch.stack([
        torch.stack([
            (model.head.map(states[b, t]) - model.autoencoder.encode(tokens[b, t + 1]).mean)
            .square().sum()
            for t in range(3)
        ])
        for b in range(2)
    ])  # fmt: skip
    torch.testing.assert_close(loss.per_position, want)
    torch.testing.assert_close(loss.total, want.mean())
    assert loss.counted.all()


def test_a_head_that_gives_one_number_for_all_is_named():
    class Averaged(LinearHead):
        def loss(self, cond, target, generator=None):
            return super().loss(cond, target, generator).mean()

    tokens = tokens_of(2, 4, 3)
    with pytest.raises(ValueError, match=r"loss of Averaged must give .*\(2, 3\); got \(\)"):
        tiny(head=Averaged(HIDDEN, LATENT)).loss(whole(tokens, ((4,), (4,))))


def test_packed_documents_are_as_good_as_separate_rows():
    model, tokens = tiny(), tokens_of(1, 7, 3)
    packed = model.loss(whole(tokens, ((3, 4),)))
    first = model.loss(whole(tokens[:, :3], ((3,),)))
    second = model.loss(whole(tokens[:, 3:], ((4,),)))
    assert packed.counted.tolist() == [[True, True, False, True, True, True]]
    alone = torch.cat([first.per_position, second.per_position], dim=1)
    torch.testing.assert_close(packed.per_position[packed.counted][None], alone)
    torch.testing.assert_close(packed.total, alone.mean())


def test_what_is_not_real_changes_nothing():
    """Ids under the padding of a first chunk, and all of empty chunks, do not matter."""
    model, tokens = tiny(), tokens_of(1, 4, 3)
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[0, 0, :2] = False
    real[0, 3] = False
    other = torch.where(real, tokens, (tokens + 1) % VOCAB)
    losses = [model.loss(ChunkBatch(t, real, ((4,),))) for t in (tokens, other)]
    assert losses[0].counted.tolist() == [[True, True, False]]
    torch.testing.assert_close(losses[0].total, losses[1].total)
    visible = model.loss(whole(tokens, ((4,),)))
    assert not torch.isclose(visible.per_position[0, 0], losses[0].per_position[0, 0])


def test_a_batch_with_nothing_to_predict():
    model = tiny(build_head=energy_head)
    loss = model.loss(whole(tokens_of(2, 3, 3), ((1, 1, 1), (1, 1, 1))))
    assert loss.total == 0 and not loss.counted.any()
    loss.total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and (p.grad == 0).all() for p in trained)


def test_gradient_reaches_all_but_the_autoencoder():
    model = tiny(build_head=energy_head).train()
    model.loss(whole(tokens_of(2, 4, 3), ((4,), (1, 3)))).total.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("autoencoder."):
            assert parameter.grad is None, name
        else:
            assert torch.isfinite(parameter.grad).all(), name
    assert not model.autoencoder.training


def test_same_seed_same_loss():
    model, batch = tiny(build_head=energy_head), whole(tokens_of(2, 4, 3), ((4,), (4,)))
    seeds = [torch.Generator().manual_seed(s) for s in (0, 0, 1)]
    first, again, other = (model.loss(batch, g).total for g in seeds)
    assert first == again != other


def test_sampled_chunks_are_decoded_samples():
    model, cond = tiny(), torch.randn(2, 5, HIDDEN, generator=torch.Generator().manual_seed(0))
    want = model.autoencoder.decode(3 * model.head.map(cond)).argmax(-1)
    assert torch.equal(model.sample_chunks(cond, 2), want.expand(2, 2, 5, 3))


@pytest.mark.parametrize(
    "part, build, message",
    [
        ("input_encoder", lambda: ChunkEmbedding(VOCAB, 2, HIDDEN), "chunk_size of autoencoder"),
        ("input_encoder", lambda: ChunkEmbedding(9, 3, HIDDEN), "vocab_size of autoencoder"),
        ("input_encoder", lambda: ChunkEmbedding(VOCAB, 3, 4), "hidden_size of input_encoder"),
        (
            "head",
            lambda: LinearHead(4, LATENT),
            "cond_size of the head must be equal; got 8 and 4",
        ),
        ("head", lambda: LinearHead(HIDDEN, 5), "latent_size of autoencoder and head"),
    ],
)
def test_mismatched_sizes_are_named(part, build, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{part: build()})


@pytest.mark.parametrize("head", [LinearHead, lambda: LinearHead(HIDDEN, LATENT)])
def test_a_part_that_is_not_built_is_named(head):
    with pytest.raises(ValueError, match=r"head must be a part that is built already; got .+"):
        tiny(head=head)


def test_bad_batches_are_named():
    with pytest.raises(ValueError, match="at least 2 chunks long to predict one; got 1"):
        tiny().loss(whole(tokens_of(2, 1, 3), ((1,), (1,))))
    with pytest.raises(ValueError, match="chunks of chunk_size = 3; the last axis has 4"):
        tiny().loss(whole(tokens_of(2, 3, 4), ((3,), (3,))))


def test_embedding_is_the_formula():
    encoder, tokens = tiny().input_encoder, tokens_of(5, 3)
    real = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    for row in range(5):
        joined = torch.cat([encoder.tokens.weight[t] * r for t, r in zip(tokens[row], real[row])])  # noqa: B905
        hidden = encoder.mlp[2](torch.nn.functional.silu(encoder.mlp[0](joined)))
        want = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-6).sqrt()
        torch.testing.assert_close(encoder(tokens, real)[row], want)


def test_embedding_refuses_empty_sizes():
    with pytest.raises(ValueError, match="vocab_size must be at least 1; got 0"):
        ChunkEmbedding(0, 3, 8)
