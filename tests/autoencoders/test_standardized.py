"""Standardised latents: exact moments, and nothing else changed."""

import pytest
import torch

from calmkit.autoencoders import (
    ContextualAutoencoder,
    MLPAutoencoder,
    StandardizedAutoencoder,
)
from calmkit.chunking import ChunkBatch
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


class TestInRows:
    """With an autoencoder whose posterior depends on the row."""

    @pytest.fixture
    def inner(self):
        torch.manual_seed(0)
        model = ContextualAutoencoder(2, 11, 3, width=4, heads=2)
        return model.requires_grad_(False)

    def batches(self):
        """Two batches, some of whose chunks are not full."""
        tokens = chunks(3, 5)
        real = torch.ones_like(tokens, dtype=torch.bool)
        real[0, 0, 0] = real[2, 4, 1] = False
        first = ChunkBatch(tokens[:2], real[:2], ((5,), (2, 3)))
        return first, ChunkBatch(tokens[2:], real[2:], ((5,),))

    def test_full_chunks_have_mean_zero_and_variance_one(self, inner):
        model = StandardizedAutoencoder(inner).fit_rows(self.batches())
        first, second = torch.zeros(3), torch.zeros(3)
        count = 0
        for batch in self.batches():
            posterior = model.encode_rows(batch)
            for row, t in batch.real.all(dim=-1).nonzero():
                mean, std = posterior.mean[row, t], posterior.std[row, t]
                first, second, count = first + mean, second + mean**2 + std**2, count + 1
        assert count == 13
        torch.testing.assert_close(first / count, torch.zeros(3))
        torch.testing.assert_close(second / count, torch.ones(3))

    def test_posterior_and_loss_are_the_inner_ones(self, inner):
        model = StandardizedAutoencoder(inner).fit_rows(self.batches())
        (batch, _) = self.batches()
        want, got = inner.encode_rows(batch), model.encode_rows(batch)
        torch.testing.assert_close(got.mean * model.scale + model.shift, want.mean)
        torch.testing.assert_close(got.std * model.scale, want.std)
        assert not torch.isclose(got.mean, model.encode(batch.tokens).mean)[0, 1:].any()
        seeds = (torch.Generator().manual_seed(1) for _ in range(2))
        losses = [part.loss_rows(batch, seed) for part, seed in zip((inner, model), seeds)]  # noqa: B905
        torch.testing.assert_close(losses[0].total, losses[1].total, rtol=0, atol=0)

    def test_partial_chunks_are_the_inner_ones(self, inner):
        model = StandardizedAutoencoder(inner).fit_rows(self.batches())
        tokens, real = chunks(4), torch.tensor([False, True]).expand(4, 2)
        want, got = inner.encode_partial(tokens, real), model.encode_partial(tokens, real)
        torch.testing.assert_close(got.mean * model.scale + model.shift, want.mean)
        torch.testing.assert_close(got.std * model.scale, want.std)

    def test_no_full_chunk_is_refused(self, inner):
        batch, _ = self.batches()
        none = ChunkBatch(batch.tokens, torch.zeros_like(batch.real), batch.lengths)
        for batches in ((), (none,)):
            with pytest.raises(ValueError, match="at least one full chunk; got none"):
                StandardizedAutoencoder(inner).fit_rows(batches)
