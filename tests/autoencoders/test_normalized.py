"""Latents of unit length: exact laws, what is lost, and what is decoded."""

import math

import pytest
import torch

from calmkit.autoencoders import (
    MLPAutoencoder,
    RMSNormalizedAutoencoder,
    SphericalAutoencoder,
    StandardizedAutoencoder,
)

LATENT = 6
BOTH = [RMSNormalizedAutoencoder, SphericalAutoencoder]


def chunks(*batch, seed=0):
    return torch.randint(11, (*batch, 2), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def inner():
    torch.manual_seed(0)
    return MLPAutoencoder(2, 11, LATENT, width=8).eval().requires_grad_(False)


def rms(x):
    return math.sqrt(sum(float(v) ** 2 for v in x) / len(x))


def test_the_law_is_that_of_latents_divided_by_a_number_of_the_chunk(inner):
    posterior = RMSNormalizedAutoencoder(inner).fit(chunks(40)).encode(chunks(5, seed=1))
    for t, chunk in enumerate(chunks(5, seed=1)):
        raw = inner.encode(chunk)
        torch.testing.assert_close(posterior.mean[t], raw.mean / rms(raw.mean))
        torch.testing.assert_close(posterior.std[t], raw.std / rms(raw.mean))


def test_on_the_sphere_a_chunk_is_a_point(inner):
    posterior = SphericalAutoencoder(inner).fit(chunks(40)).encode(chunks(5, seed=1))
    assert (posterior.std == 0).all()
    for t, chunk in enumerate(chunks(5, seed=1)):
        raw = inner.encode(chunk).mean
        torch.testing.assert_close(posterior.mean[t], raw / rms(raw))
        assert float(posterior.mean[t].norm()) == pytest.approx(math.sqrt(LATENT))


@pytest.mark.parametrize("wrapper", BOTH)
def test_the_radius_is_the_mean_length(inner, wrapper):
    model = wrapper(inner).fit(chunks(40))
    lengths = [rms(inner.encode(chunk).mean) for chunk in chunks(40)]
    assert float(model.radius) == pytest.approx(sum(lengths) / 40)


def test_what_is_decoded(inner):
    rooted, sphere = (wrapper(inner).fit(chunks(40)) for wrapper in BOTH)
    latents = torch.randn(4, LATENT, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(rooted.decode(latents), inner.decode(latents * rooted.radius))
    unit = torch.stack([x / rms(x) for x in latents])
    torch.testing.assert_close(sphere.decode(latents), inner.decode(unit * sphere.radius))
    # An error of length does no harm on the sphere.
    torch.testing.assert_close(sphere.decode(7 * latents), sphere.decode(latents))
    assert not torch.isclose(rooted.decode(7 * latents), rooted.decode(latents)).all()


@pytest.mark.parametrize("wrapper", BOTH)
def test_only_the_length_is_lost(inner, wrapper):
    """A chunk whose mean has the length r is decoded as by the inner autoencoder."""
    model, tokens = wrapper(inner), chunks(5, seed=1)
    raw = inner.encode(tokens).mean
    for t in range(5):
        model.radius.fill_(rms(raw[t]))
        torch.testing.assert_close(
            model.decode(model.encode(tokens[t]).mean), inner.decode(raw[t])
        )


@pytest.mark.parametrize("wrapper", BOTH)
def test_evaluation_tells_what_the_length_costs(inner, wrapper):
    """Loss and reconstruction are those of the presented mean; the KL is the inner one."""
    model, tokens = wrapper(inner).fit(chunks(40)).eval(), chunks(5, seed=1)
    got, raw = model.loss(tokens), inner.loss(tokens)
    logs = model.decode(model.encode(tokens).mean).log_softmax(dim=-1)
    want = -logs.gather(-1, tokens[..., None])[..., 0].sum(dim=-1)
    torch.testing.assert_close(got.reconstruction, want)
    assert not torch.isclose(got.reconstruction, raw.reconstruction).all()
    torch.testing.assert_close(got.total - got.reconstruction, raw.total - raw.reconstruction)
    torch.testing.assert_close(got.kl, raw.kl, rtol=0, atol=0)


@pytest.mark.parametrize("wrapper", BOTH)
def test_zeros_are_finite(inner, wrapper):
    model = wrapper(inner).fit(chunks(40))
    latents = torch.zeros(2, LATENT, requires_grad=True)
    (slope,) = torch.autograd.grad(model.decode(latents).square().sum(), latents)
    assert torch.isfinite(slope).all()


def test_inner_wrappers_are_fitted_first(inner):
    """In any order of calls the result is that of fitting from the inside out."""
    got = SphericalAutoencoder(StandardizedAutoencoder(inner)).fit(chunks(40))
    standard = StandardizedAutoencoder(inner).fit(chunks(40))
    want = SphericalAutoencoder(standard).fit(chunks(40))
    assert not torch.equal(got.autoencoder.scale, torch.ones(LATENT))
    torch.testing.assert_close(got.autoencoder.scale, standard.scale)
    torch.testing.assert_close(got.radius, want.radius)


def test_in_bfloat16_the_radius_keeps_its_digits(inner):
    model = RMSNormalizedAutoencoder(inner).fit(chunks(40))
    radius = model.radius.clone()
    model.bfloat16()
    assert float(model.radius) == float(radius.to(model.radius.dtype))
    assert model.radius.dtype != torch.bfloat16
    assert model.encode(chunks(3)).mean.dtype == torch.bfloat16
