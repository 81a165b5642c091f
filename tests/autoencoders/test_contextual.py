"""The contextual autoencoder's own formulas and reach; the rest is in tests/contracts."""

import math

import pytest
import torch
from torch.nn.functional import silu

from calmkit.autoencoders import ContextualAutoencoder
from calmkit.chunking import ChunkBatch

K, VOCAB, LATENT, WIDTH = 2, 40, 3, 4


def autoencoder(**arguments):
    torch.manual_seed(0)
    small = {"width": WIDTH, "depth": 2, "heads": 2, "memory_size": 3}
    model = ContextualAutoencoder(K, VOCAB, LATENT, **small | arguments)
    with torch.no_grad():
        model.mask_embedding.normal_()  # zero at first: it would not be seen
    return model


def rows(lengths, *, vocab=VOCAB):
    """Rows in which every token has an id of its own, as far as there are ids."""
    shape = (len(lengths), sum(lengths[0]), K)
    tokens = torch.arange(math.prod(shape)).view(shape) % vocab
    return ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), lengths)


def rms_norm(x, norm):
    return x / (x.square().mean() + 1e-6).sqrt() * norm.weight


def attending(x, memory, layer):
    """One layer, vector by vector and head by head."""
    out, size = [], WIDTH // layer.heads
    read = [rms_norm(m, layer.memory_norm) for m in memory]
    for vector in x:
        q = layer.query.weight @ rms_norm(vector, layer.norm)
        joined = []
        for head in range(layer.heads):
            part = slice(head * size, (head + 1) * size)
            scores = [
                float(q[part] @ (layer.key.weight @ m)[part]) / math.sqrt(size) for m in read
            ]
            total = sum(math.exp(score) for score in scores)
            joined.append(
                sum(
                    math.exp(score) / total * (layer.value.weight @ m)[part]
                    for score, m in zip(scores, read, strict=True)
                )
            )
        vector = vector + layer.output.weight @ torch.cat(joined)
        ff, normed = layer.feed_forward, rms_norm(vector, layer.feed_forward_norm)
        hidden = silu(ff.gate.weight @ normed) * (ff.up.weight @ normed)
        out.append(vector + ff.down.weight @ hidden)
    return out


@torch.no_grad()
def test_matches_its_formula():
    """Of the second chunk of a document: the first is read, then its own places."""
    model, batch = autoencoder(), rows(((2,),))
    model.pooling_query.normal_(std=3.0)
    seen = [*batch.tokens[0, 0], *batch.tokens[0, 1]]
    x = [
        math.sqrt(WIDTH) * model.embedding.weight[token] + model.places[place]
        for place, token in enumerate(seen)
    ]
    for layer in model.encoder_layers:
        x = attending(x, x, layer)
    (pooled,) = attending([model.pooling_query[0]], x, model.pooling)
    mean, log_std = model.to_posterior(rms_norm(pooled, model.encoder_norm)).split(LATENT)
    posterior = model.encode_rows(batch)
    torch.testing.assert_close(posterior.mean[0, 1], mean)
    torch.testing.assert_close(posterior.std[0, 1], log_std.clamp(-7, 2).exp())

    latent = torch.randn(LATENT)
    memory = model.from_latent(latent).split(WIDTH)
    logits = model.decode(latent)
    for place in range(K):
        x = [model.decoder_queries[place]]
        for layer in model.decoder_layers:
            x = attending(x, memory, layer)
        want = model.embedding.weight @ rms_norm(x[0], model.decoder_norm)
        torch.testing.assert_close(logits[place], want)


@torch.no_grad()
def test_a_missing_neighbour_holds_the_mask_embedding():
    model = autoencoder(neighbours_before=1, neighbours_after=1)
    tokens = rows(((1,),)).tokens[0]
    empty = model.mask_embedding.expand(1, K, WIDTH)
    embedded = torch.cat([empty, model.embedding(tokens), empty], dim=1)
    want = model._parameters_of(embedded)[..., :LATENT]
    torch.testing.assert_close(model.encode(tokens).mean, want)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 1), (2, 1)])
def test_reach_is_the_neighbours_of_the_same_document_exactly(before, after):
    """By the gradient at each token's own row of the embedding table: it is zero, or not."""
    model = autoencoder(neighbours_before=before, neighbours_after=after)
    batch = rows(((5, 4),))
    real = batch.real.clone()
    real[0, 1, 0] = False
    batch = ChunkBatch(batch.tokens, real, batch.lengths)
    for position in range(9):
        model.zero_grad()
        posterior = model.encode_rows(batch)
        (posterior.mean + posterior.std)[0, position].sum().backward()
        for other in range(9):
            near = -before <= other - position <= after
            together = (other < 5) == (position < 5)
            for k in range(K):
                known = other == position or bool(real[0, other, k])
                row = model.embedding.weight.grad[batch.tokens[0, other, k]]
                assert bool((row != 0).all()) == (near and together and known)
                assert bool((row == 0).all()) != (near and together and known)


def test_context_changes_the_posterior():
    model, batch = autoencoder(), rows(((4,),))
    alone, in_row = model.encode(batch.tokens), model.encode_rows(batch)
    torch.testing.assert_close(in_row.mean[:, 0], alone.mean[:, 0])
    for position in (1, 2, 3):
        assert not torch.isclose(in_row.mean[0, position], alone.mean[0, position]).any()


def test_a_latent_is_decoded_alone():
    model = autoencoder()
    latents = torch.randn(2, 5, LATENT, requires_grad=True)
    logits = model.decode(latents)
    for row in range(2):
        for t in range(5):
            (gradient,) = torch.autograd.grad(
                logits[row, t].square().sum(), latents, retain_graph=True
            )
            touched = torch.zeros(2, 5, dtype=torch.bool)
            touched[row, t] = True
            assert torch.equal(gradient.abs().sum(dim=-1) > 0, touched)


def test_tokens_of_neighbours_are_masked_in_training_too():
    """With nearly every token masked, no token of the row matters to the posterior."""
    model = autoencoder(token_masking=1 - 1e-12, latent_dropout=0.0).train()
    batch = rows(((4,),))
    other = ChunkBatch((batch.tokens + 9) % VOCAB, batch.real, batch.lengths)
    first, second = (
        model.loss_rows(b, torch.Generator().manual_seed(0)).kl for b in (batch, other)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_depth_counts_layers():
    for depth in (1, 3):
        model = autoencoder(depth=depth)
        assert len(model.encoder_layers) == len(model.decoder_layers) == depth


def test_starts_with_about_unit_variance():
    torch.manual_seed(0)
    model = ContextualAutoencoder(4, 500, 64, width=64, heads=4)
    posterior = model.encode(torch.randint(500, (300, 4)))
    torch.testing.assert_close(posterior.std.log().square().mean().item(), 1.0, rtol=0.3, atol=0)
    # The final norm makes the hidden state's length sqrt(64); 500 rows of length about 1.
    logits = model.decode(torch.randn(100, 64))
    torch.testing.assert_close(logits.var().item(), 1.0, rtol=0.1, atol=0)


def test_learns_to_reconstruct():
    """In rows of random tokens, and then of chunks alone."""
    torch.manual_seed(0)
    model = ContextualAutoencoder(2, 11, 8, width=32, depth=1, heads=4)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(140):
        tokens = torch.randint(11, (4, 32, 2), generator=generator)
        batch = ChunkBatch(tokens, torch.ones_like(tokens, dtype=torch.bool), ((8,) * 4,) * 4)
        optimizer.zero_grad()
        model.loss_rows(batch, generator).total.mean().backward()
        optimizer.step()
    model.eval()
    tokens = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    tokens = tokens[torch.randperm(121, generator=generator)]
    in_row = ChunkBatch(tokens[None], torch.ones_like(tokens[None], dtype=torch.bool), ((121,),))
    for mean in (model.encode_rows(in_row).mean[0], model.encode(tokens).mean):
        assert (model.decode_tokens(mean) == tokens).double().mean() > 0.97


@pytest.mark.parametrize("depth", [1, 8])
def test_branches_are_small_where_there_are_many(depth):
    torch.manual_seed(0)
    model = ContextualAutoencoder(2, 11, 8, width=128, depth=depth, heads=4)
    for layer in (*model.encoder_layers, model.pooling, *model.decoder_layers):
        for branch in (layer.output, layer.feed_forward.down):
            std = branch.weight.std() * math.sqrt(branch.in_features)
            torch.testing.assert_close(std.item(), 1 / math.sqrt(2 * depth), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": 0}, "depth must be at least 1; got 0"),
        ({"heads": 0}, "heads must be at least 1; got 0"),
        ({"heads": 3}, "heads must divide width = 4; got 3"),
        ({"memory_size": 1}, "memory_size must be at least 2; got 1"),
        ({"neighbours_before": -1}, "neighbours_before must be at least 0; got -1"),
        ({"neighbours_after": -1}, "neighbours_after must be at least 0; got -1"),
        ({"kl_weight": -1.0}, r"kl_weight must be in \[0, inf\); got -1.0"),
        ({"latent_dropout": 1.0}, r"latent_dropout must be in \[0, 1\); got 1.0"),
    ],
)
def test_bad_settings_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        autoencoder(**arguments)
