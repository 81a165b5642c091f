"""Bounds of the nats of a chunk, where the probability is known by quadrature."""

import math

import pytest
import torch
from torch.testing import assert_close

from calmkit.autoencoders import MLPAutoencoder
from calmkit.backbones import TransformerBackbone
from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead, GaussianHead, MixtureHead
from calmkit.models import CALM, ChunkEmbedding

VOCAB, POINTS, REPEATS = 3, 20, 100


def calm(head, latent=1):
    torch.manual_seed(0)
    sizes = {"width": 8, "depth": 1}
    model = CALM(
        autoencoder=MLPAutoencoder(2, VOCAB, latent, width=8),
        input_encoder=ChunkEmbedding(VOCAB, 2, 8),
        backbone=TransformerBackbone(8, depth=1, heads=2),
        head=head(8, latent, **sizes),
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.startswith("backbone"):
                p.add_(0.3 * torch.randn_like(p))
    return model.double().eval()


@pytest.fixture
def module(load):
    return load("chunk_nats")


@pytest.fixture
def points():
    """States, and all chunks in turn."""
    generator = torch.Generator().manual_seed(1)
    cond = torch.randn(POINTS, 8, dtype=torch.float64, generator=generator)
    tokens = torch.randint(VOCAB, (POINTS, 2), generator=generator)
    return cond, tokens


def probability(model, cond, tokens):
    """The integral of p(z | h) p(x | z) over the latent, by the trapezoidal rule."""
    z = torch.linspace(-20, 20, 2001, dtype=torch.float64)[:, None, None].expand(-1, POINTS, 1)
    logs = -model.autoencoder.token_nats(z, tokens.expand(len(z), *tokens.shape)).sum(dim=-1)
    density = torch.stack([model.head.log_prob(cond, one) for one in z])
    return (logs + density).exp().sum(dim=0) * 40 / 2000


@pytest.mark.parametrize("head", [GaussianHead, MixtureHead])
def test_bounds_close_in_on_the_true_nats(module, points, head):
    model, (cond, tokens) = calm(head), points
    with torch.no_grad():
        truth, posterior = probability(model, cond, tokens), model.autoencoder.encode(tokens)
    repeated = [x.repeat(REPEATS, 1) for x in (cond, tokens, posterior.mean, posterior.std)]
    found = module.chunk_nats(
        model,
        *repeated[:2],
        DiagonalGaussian(*repeated[2:]),
        draws=12,
        generator=torch.Generator().manual_seed(0),
    )
    runs = found.probability.view(REPEATS, POINTS)
    error = runs.std(dim=0) / math.sqrt(REPEATS)
    assert bool(((runs.mean(dim=0) - truth).abs() < 6 * error).all())
    assert bool((error < 0.2 * truth).all())
    nats = -truth.log().mean()
    few, many = found.few.mean(), found.many.mean()
    assert nats < many < few and many - nats < 0.4 * (few - nats)
    # By draws alone the bound is of P too, with a third of the draws.
    assert found.by_draws.mean() > many


def test_without_a_density_the_draws_are_decoded(module, points):
    model, (cond, tokens) = calm(EnergyHead), points
    with torch.no_grad():
        posterior = model.autoencoder.encode(tokens)
        latents = model.head.sample(cond, 24, torch.Generator().manual_seed(3))
        logits = torch.stack([model.autoencoder.decode(one) for one in latents])
        logs = (
            logits.log_softmax(dim=-1)
            .gather(-1, tokens.expand(24, POINTS, 2)[..., None])
            .sum(dim=(-1, -2))
        )
    found = module.chunk_nats(
        model, cond, tokens, posterior, draws=24, generator=torch.Generator().manual_seed(3)
    )
    assert_close(found.many, -logs.exp().mean(dim=0).log())
    quarters = [-logs[n : n + 6].exp().mean(dim=0).log() for n in range(0, 24, 6)]
    assert_close(found.few, torch.stack(quarters).mean(dim=0))
    assert_close(found.by_draws, found.many)
    assert_close(found.probability, logs.exp().mean(dim=0))


@pytest.mark.parametrize("head", [GaussianHead, MixtureHead])
def test_the_mixture_is_that_of_the_head_and_is_pulled_by_a_gaussian(module, points, head):
    model, (cond, _) = calm(head, latent=3), points
    generator = torch.Generator().manual_seed(2)
    center, *latents = torch.randn(6, POINTS, 3, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        law = module.predicted_mixture(model, cond)
        pulled = module.pulled(law, center, 0.7)
        factor = DiagonalGaussian(center, torch.full_like(center, 0.7))
        ratios = []
        for one in latents:
            assert_close(law.log_prob(one), model.head.log_prob(cond, one))
            ratios.append(pulled.log_prob(one) - law.log_prob(one) - factor.log_prob(one))
    assert_close(torch.stack(ratios), ratios[0].expand(5, POINTS))
    assert_close(pulled.log_weights.logsumexp(dim=-1), torch.zeros(POINTS, dtype=torch.float64))


def test_what_cannot_be_bounded_is_refused(module, points):
    cond, tokens = points
    model = calm(GaussianHead)
    with torch.no_grad():
        posterior = model.autoencoder.encode(tokens)
    with pytest.raises(ValueError, match=r"draws must be a positive multiple of 12.*got 16"):
        module.chunk_nats(model, cond, tokens, posterior, draws=16, generator=torch.Generator())
    wide = calm(lambda *sizes, **more: MixtureHead(*sizes, rank=1, **more))
    with pytest.raises(ValueError, match="head must predict diagonal covariances; got rank 1"):
        module.predicted_mixture(wide, cond)
