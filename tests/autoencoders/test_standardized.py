"""Standardised latents: exact moments, and nothing else changed."""

import pytest
import torch

from calmkit.autoencoders import MLPAutoencoder, StandardizedAutoencoder
from calmkit.distributions import DiagonalGaussian


def chunks(*batch):
    return torch.randint(11, (*batch, 2), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def inner():
    torch.manual_seed(0)
    return MLPAutoencoder(2, 11, 3, width=4).requires_grad_(False)


def test_the_aggregate_posterior_has_mean_zero_and_variance_one(inner):
    model = StandardizedAutoencoder(inner).fit(chunks(4, 10))
    posterior = model.encode(chunks(4, 10))
    mean, std = posterior.mean.view(-1, 3), posterior.std.view(-1, 3)
    for i in range(3):
        first = sum(mean[:, i]) / 40
        second = sum(mean[:, i] ** 2 + std[:, i] ** 2) / 40
        torch.testing.assert_close(first, torch.tensor(0.0))
        torch.testing.assert_close(second - first**2, torch.tensor(1.0))


def test_nothing_is_lost(inner):
    model = StandardizedAutoencoder(inner).fit(chunks(40))
    tokens = chunks(5)
    torch.testing.assert_close(
        model.decode(model.encode(tokens).mean), inner.decode(inner.encode(tokens).mean)
    )
    before, after = inner.eval().loss(tokens), model.eval().loss(tokens)
    torch.testing.assert_close(after.total, before.total, rtol=0, atol=0)


def test_is_the_identity_until_fit(inner):
    model = StandardizedAutoencoder(inner)
    before, after = inner.encode(chunks(5)), model.encode(chunks(5))
    torch.testing.assert_close((after.mean, after.std), (before.mean, before.std), rtol=0, atol=0)


def test_fit_again_does_not_pile_up(inner):
    model = StandardizedAutoencoder(inner).fit(chunks(10)).fit(chunks(40))
    other = StandardizedAutoencoder(inner).fit(chunks(40))
    torch.testing.assert_close((model.shift, model.scale), (other.shift, other.scale))


def test_a_dead_dimension_is_named(inner, monkeypatch):
    model = StandardizedAutoencoder(inner)
    dead = DiagonalGaussian.point_mass(torch.randn(4, 3) * torch.tensor([1.0, 0.0, 1.0]))
    monkeypatch.setattr(inner, "encode", lambda tokens: dead)
    with pytest.raises(ValueError, match="dimension 1 has none"):
        model.fit(chunks(4))


def test_no_chunk_is_refused(inner):
    with pytest.raises(ValueError, match="at least one chunk"):
        StandardizedAutoencoder(inner).fit(chunks(0))
