"""The MLP autoencoder's own formulas; what every autoencoder promises is in tests/contracts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import silu

from calmkit.autoencoders import MLPAutoencoder, regularized


def autoencoder(**arguments):
    torch.manual_seed(0)
    return MLPAutoencoder(2, 11, 3, **{"width": 4} | arguments).requires_grad_(False)


def chunks(*batch):
    return torch.randint(11, (*batch, 2), generator=torch.Generator().manual_seed(0))


def rms_norm(x, norm):
    return x / (x.square().mean() + 1e-6).sqrt() * norm.weight


def residual(x, blocks):
    for block in blocks:
        normed, ff = rms_norm(x, block.norm), block.feed_forward
        hidden = silu(ff.gate.weight @ normed) * (ff.up.weight @ normed)
        x = x + ff.down.weight @ hidden
    return x


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_matches_its_formula(depth):
    model = autoencoder(depth=depth)
    tokens = chunks()
    table = model.embedding.weight
    x = torch.cat([residual(table[token], model.encoder_token_blocks) for token in tokens])
    x = residual(model.squeeze(x), model.encoder_chunk_blocks)
    mean, log_std = model.to_posterior(rms_norm(x, model.encoder_norm)).split(3)
    posterior = model.encode(tokens)
    torch.testing.assert_close(posterior.mean, mean)
    torch.testing.assert_close(posterior.std, log_std.clamp(-7, 2).exp())

    latent = torch.randn(3)
    x = model.expand(residual(model.from_latent(latent), model.decoder_chunk_blocks))
    for k, hidden in enumerate(x.split(4)):
        hidden = rms_norm(residual(hidden, model.decoder_token_blocks), model.decoder_norm)
        torch.testing.assert_close(model.decode(latent)[k], table @ hidden)


@given(st.integers(0, 5))
def test_depth_counts_the_blocks_of_each_stage(depth):
    model = autoencoder(depth=depth)
    for stage in ("encoder_token", "encoder_chunk", "decoder_chunk", "decoder_token"):
        assert len(getattr(model, f"{stage}_blocks")) == depth


@pytest.mark.parametrize("clip", [0.0, 0.5, 3.0])
def test_total_is_reconstruction_plus_clipped_kl(clip):
    model = autoencoder(kl_clip=clip, kl_weight=0.3).eval()
    with torch.no_grad():
        model.to_posterior.weight.mul_(2.0)
    tokens = chunks(6)
    loss = model.loss(tokens)
    posterior = model.encode(tokens)
    for row in range(6):
        kl = clipped = 0.0
        for i in range(3):
            m, s = posterior.mean[row, i], posterior.std[row, i]
            one = (m**2 + s**2 - 1) / 2 - s.log()
            kl += one
            clipped += max(one, torch.tensor(clip))
        torch.testing.assert_close(loss.kl[row], kl)
        torch.testing.assert_close(loss.total[row], loss.reconstruction[row] + 0.3 * clipped)


def test_a_dimension_below_the_clip_is_not_pulled_further():
    """The gradient of the KL term is zero there, and is the KL's own above."""
    torch.manual_seed(0)
    tokens = chunks(1)
    for clip, still in ((1e3, True), (0.0, False)):
        model = MLPAutoencoder(2, 11, 3, width=4, kl_clip=clip, kl_weight=1.0).eval()
        loss = model.loss(tokens)
        difference = (loss.total - loss.reconstruction).sum()
        (gradient,) = torch.autograd.grad(difference, model.to_posterior.weight)
        assert bool((gradient == 0).all()) is still


def test_masking_uses_the_mask_embedding():
    """With nearly every token masked, the tokens do not matter to the posterior; the mask does."""
    model = autoencoder(token_masking=1 - 1e-12, latent_dropout=0.0).train()
    first = model.loss(chunks(1), torch.Generator().manual_seed(0)).kl
    other = model.loss((chunks(1) + 1) % 11, torch.Generator().manual_seed(0)).kl
    torch.testing.assert_close(first, other, rtol=0, atol=0)
    with torch.no_grad():
        model.mask_embedding.normal_()
    moved = model.loss(chunks(1), torch.Generator().manual_seed(0)).kl
    assert not torch.isclose(moved, first).any()
    # No real token's row of the embedding table is read by the encoder in their place.
    with torch.no_grad():
        model.embedding.weight.add_(1.0)
    kl = model.loss(chunks(1), torch.Generator().manual_seed(0)).kl
    torch.testing.assert_close(kl, moved, rtol=0, atol=0)


def test_a_share_of_tokens_is_masked_and_of_latents_dropped():
    model = autoencoder(token_masking=0.3, latent_dropout=0.2, depth=0).train()
    seen, latents = [], []
    model.squeeze.register_forward_pre_hook(lambda _, x: seen.append(x[0].unflatten(-1, (2, -1))))
    model.from_latent.register_forward_pre_hook(lambda _, x: latents.append(x[0]))
    with torch.no_grad():
        model.mask_embedding.fill_(123.0)
    model.loss(chunks(4000), torch.Generator().manual_seed(0))
    # 8,000 tokens and 12,000 dimensions: five standard errors.
    assert abs(float((seen[0] == 123.0).all(dim=-1).double().mean()) - 0.3) < 0.026
    assert abs(float((latents[0] == 0).double().mean()) - 0.2) < 0.019


def test_dropout_keeps_the_mean():
    """What is kept is scaled by 1 / (1 - share)."""
    plain, dropped = (autoencoder(token_masking=0.0, latent_dropout=p).train() for p in (0.0, 0.2))
    latents = []
    for model in (plain, dropped):
        model.from_latent.register_forward_pre_hook(lambda _, x: latents.append(x[0]))
        model.loss(chunks(100), torch.Generator().manual_seed(0))
    kept = latents[1] != 0
    torch.testing.assert_close(latents[1][kept], latents[0][kept] / 0.8)


def test_logits_start_with_about_unit_variance():
    torch.manual_seed(0)
    model = MLPAutoencoder(2, 500, 16, width=64)
    logits = model.decode(torch.randn(200, 16))
    # The final norm makes the hidden state's length sqrt(64); 500 rows of length about 1.
    torch.testing.assert_close(logits.var().item(), 1.0, rtol=0.1, atol=0)


def test_posterior_width_is_bounded():
    model = autoencoder()
    with torch.no_grad():
        model.to_posterior.bias[3:] = torch.tensor([-1e4, 0.0, 1e4])
    std = model.encode(chunks(5)).std
    torch.testing.assert_close(std[:, 0], torch.full((5,), -7.0).exp())
    torch.testing.assert_close(std[:, 2], torch.full((5,), 2.0).exp())
    assert torch.isfinite(model.loss(chunks(5)).total).all()


def test_learns_to_reconstruct():
    torch.manual_seed(0)
    model = MLPAutoencoder(2, 11, 8, width=24)
    tokens = torch.cartesian_prod(torch.arange(11), torch.arange(11))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(tokens, generator).total.mean().backward()
        optimizer.step()
    model.eval()
    right = model.decode_tokens(model.encode(tokens).mean) == tokens
    assert right.double().mean() > 0.99


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"depth": -1}, "depth must be at least 0; got -1"),
        ({"decoder_depth": -1}, "decoder_depth must be at least 0; got -1"),
        ({"norm_eps": -1.0}, r"norm_eps must be in \[0, inf\); got -1.0"),
        ({"kl_weight": -1.0}, r"kl_weight must be in \[0, inf\); got -1.0"),
        ({"kl_clip": -0.1}, r"kl_clip must be in \[0, inf\); got -0.1"),
        ({"kl_clip": float("nan")}, r"kl_clip must be in \[0, inf\); got nan"),
        ({"token_masking": 1.0}, r"token_masking must be in \[0, 1\); got 1.0"),
        ({"latent_dropout": -0.1}, r"latent_dropout must be in \[0, 1\); got -0.1"),
    ],
)
def test_bad_settings_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        autoencoder(**arguments)


@pytest.mark.parametrize("name", ["chunk_size", "vocab_size", "latent_size"])
def test_bad_sizes_are_refused(name):
    sizes = {"chunk_size": 2, "vocab_size": 11, "latent_size": 3} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        MLPAutoencoder(**sizes)


@pytest.mark.parametrize("block", [1, 4, 7, 11, 50])
def test_a_vocabulary_in_blocks_gives_the_same_tokens(block, monkeypatch):
    """The first of equal logits counts, also across blocks."""
    monkeypatch.setattr(regularized, "_TOKENS_AT_ONCE", block)
    torch.manual_seed(0)
    model = MLPAutoencoder(3, 11, 5, width=8)
    with torch.no_grad():
        model.embedding.weight[7] = model.embedding.weight[2]  # equal logits
    latents = torch.randn(200, 5)
    want = model.decode(latents).argmax(dim=-1)
    assert (want == 2).any() and not (want == 7).any()
    assert torch.equal(model.decode_tokens(latents), want)
