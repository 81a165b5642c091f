"""A chunk's latent is those of its tokens, side by side, from one autoencoder of single tokens."""

import pytest
import torch
from autoencoder_instances import tokenwise
from seeding import randomized, seeded

from calmkit.autoencoders import (
    MLPAutoencoder,
    StandardizedAutoencoder,
    TokenwiseAutoencoder,
)
from calmkit.distributions import DiagonalGaussian
from calmkit.saving import load, save


@pytest.fixture
def model():
    return randomized(tokenwise())


def chunks(*batch):
    return torch.randint(11, (*batch, 3), generator=seeded())


def side_by_side(posteriors):
    return torch.cat([p.mean for p in posteriors], -1), torch.cat([p.std for p in posteriors], -1)


def test_latents_of_a_chunk_are_those_of_its_tokens(model):
    tokens, single = chunks(4), model.autoencoder
    posterior = model.encode(tokens)
    want = side_by_side([single.encode(tokens[:, k : k + 1]) for k in range(3)])
    torch.testing.assert_close((posterior.mean, posterior.std), want)
    real = torch.rand(4, 3, generator=seeded(1)) < 0.5
    posterior = model.encode_partial(tokens, real)
    want = side_by_side(
        [single.encode_partial(tokens[:, k : k + 1], real[:, k : k + 1]) for k in range(3)]
    )
    torch.testing.assert_close((posterior.mean, posterior.std), want)


def test_each_token_is_decoded_from_its_part(model):
    latents = torch.randn(4, 6, generator=seeded(1))
    logits = model.decode(latents)
    for k in range(3):
        want = model.autoencoder.decode(latents[:, 2 * k : 2 * k + 2])
        torch.testing.assert_close(logits[:, k], want[:, 0])


def test_loss_is_the_sum_over_the_tokens(model):
    tokens = chunks(4)
    model.eval()
    alone = [model.autoencoder.loss(tokens[:, k : k + 1]) for k in range(3)]
    loss = model.loss(tokens)
    for name in ("total", "reconstruction", "kl"):
        torch.testing.assert_close(getattr(loss, name), sum(getattr(x, name) for x in alone))
    posterior = model.encode(tokens)
    kl = DiagonalGaussian(posterior.mean, posterior.std).kl_to_standard_normal().sum(dim=-1)
    torch.testing.assert_close(loss.kl, kl)


def test_it_restores_what_it_has_learned():
    torch.manual_seed(0)
    model = tokenwise(token_masking=0.0, latent_dropout=0.0, width=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    tokens = chunks(30)
    for step in range(60):
        optimizer.zero_grad()
        model.loss(tokens, seeded(step)).total.mean().backward()
        optimizer.step()
    standard = StandardizedAutoencoder(model.eval()).fit(tokens)
    for one in (model, standard):
        assert torch.equal(one.decode_tokens(one.encode(tokens).mean), tokens)


def test_it_is_saved_with_the_autoencoder_inside(model, tmp_path):
    save(model, tmp_path)
    loaded = load(tmp_path, TokenwiseAutoencoder)
    assert type(loaded.autoencoder) is MLPAutoencoder
    assert torch.equal(loaded.encode(chunks(4)).mean, model.encode(chunks(4)).mean)


def test_a_latent_that_the_tokens_cannot_share_is_refused():
    message = "latent_size must be a multiple of chunk_size = 3, so that all .* shares; got 7"
    with pytest.raises(ValueError, match=message):
        TokenwiseAutoencoder(3, 11, 7)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda _, vocab, latent: MLPAutoencoder(2, vocab, latent, width=8), "got 2, 11 and 2"),
        (lambda chunk, vocab, _: MLPAutoencoder(chunk, vocab, 6, width=8), "got 1, 11 and 6"),
        (lambda *sizes: None, "must build a ChunkAutoencoder .*, and return it; got NoneType"),
    ],
)
def test_what_is_built_must_be_an_autoencoder_of_single_tokens(build, message):
    with pytest.raises(ValueError, match=message):
        TokenwiseAutoencoder(3, 11, 6, autoencoder=build)
