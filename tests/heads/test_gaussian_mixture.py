"""Mixtures of Gaussians: scipy, integrals, exact expectations over sign vectors.

Sign vectors e in {-1, 1}^n, all equally likely, have mean zero and identity covariance. In place
of normal noise they give expectations of quadratic functions exactly: no test here is left to
chance.
"""

import itertools
import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import distributions

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.gaussian_mixture import GaussianMixture

seeds = st.integers(0, 2**31 - 1)
batches = st.sampled_from([(), (3,), (2, 2), (0,)])
ranks = st.integers(0, 2)


def mixture(seed, batch=(), components=3, latent=2, rank=1, std=0.3):
    g = torch.Generator().manual_seed(seed)
    shape = (*batch, components)
    return GaussianMixture(
        torch.randn(shape, generator=g).log_softmax(-1),
        torch.randn(*shape, latent, generator=g),
        std + torch.rand(*shape, latent, generator=g),
        torch.randn(*shape, latent, rank, generator=g),
    )


def target_of(seed, batch=(), latent=2, std=0.8):
    g = torch.Generator().manual_seed(seed + 1)
    mean = 1.5 * torch.randn(*batch, latent, generator=g)
    return DiagonalGaussian(mean, std * torch.rand(mean.shape, generator=g))


def signs(size, batch=()):
    """All sign vectors, along the first axis, for each position."""
    every = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=size)))
    return every.view(-1, *(1,) * len(batch), size).expand(-1, *batch, size)


def covariances(law):
    return law.std.square().diag_embed() + law.factor @ law.factor.mT


@given(seeds, batches, st.integers(1, 4), st.integers(1, 3), ranks)
def test_log_prob_matches_scipy(seed, batch, components, latent, rank):
    law = mixture(seed, batch, components, latent, rank)
    z = target_of(seed, batch, latent).mean
    got, covariance = law.log_prob(z), covariances(law)
    assert got.shape == batch
    for i in itertools.product(*map(range, batch)):
        density = sum(
            math.exp(law.log_weights[(*i, k)])
            * scipy.stats.multivariate_normal(
                law.mean[(*i, k)].numpy(), covariance[(*i, k)].numpy()
            ).pdf(z[i].numpy())
            for k in range(components)
        )
        assert float(got[i]) == pytest.approx(math.log(density), abs=1e-9)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_log_prob_matches_torch(seed, components, latent, rank):
    law = mixture(seed, (5,), components, latent, rank)
    z = target_of(seed, (5,), latent).mean
    parts = distributions.LowRankMultivariateNormal(law.mean, law.factor, law.std.square())
    weights = distributions.Categorical(logits=law.log_weights)
    want = distributions.MixtureSameFamily(weights, parts).log_prob(z)
    torch.testing.assert_close(law.log_prob(z), want)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("latent", [1, 2])
def test_densities_integrate_to_one(latent, rank):
    law = mixture(0, (), 3, latent, rank)
    axis = torch.linspace(-12, 12, 400)
    grid = torch.cartesian_prod(*[axis] * latent).view(-1, latent)
    fields = (law.log_weights, law.mean, law.std, law.factor)
    law = GaussianMixture(*(x.expand(len(grid), *x.shape) for x in fields))
    total = law.log_prob(grid).exp().sum() * (axis[1] - axis[0]) ** latent
    torch.testing.assert_close(total, torch.tensor(1.0), rtol=0, atol=1e-9)


@given(seeds, batches, st.integers(1, 4), st.integers(1, 3), ranks)
def test_cross_entropy_is_unbiased_by_enumeration(seed, batch, components, latent, rank):
    """E over sign vectors: the closed form is exact there, so the estimate must be as well."""
    law, target = mixture(seed, batch, components, latent, rank), target_of(seed, batch, latent)
    noise = signs(latent, batch)
    want = -torch.stack([law.log_prob(target.mean + target.std * e) for e in noise]).mean(0)
    torch.testing.assert_close(law.cross_entropy(target, noise), want)
    each = torch.stack([law.cross_entropy(target, e[None]) for e in noise])
    torch.testing.assert_close(each.mean(dim=0), want)


@given(seeds, batches, ranks)
def test_one_component_is_exact_and_needs_no_noise(seed, batch, rank):
    law, target = mixture(seed, batch, 1, 3, rank), target_of(seed, batch, 3)
    got = law.cross_entropy(target, torch.full((1, *batch, 3), math.nan))
    covariance = covariances(law)[..., 0, :, :]
    error = (target.mean - law.mean[..., 0, :])[..., None]
    second_moment = target.std.square().diag_embed() + error @ error.mT
    trace = (covariance.inverse() @ second_moment).diagonal(dim1=-2, dim2=-1).sum(-1)
    want = 0.5 * (3 * math.log(2 * math.pi) + covariance.logdet() + trace)
    torch.testing.assert_close(got, want)


@given(seeds, st.integers(1, 4), ranks)
def test_exact_for_a_point_mass(seed, components, rank):
    law = mixture(seed, (4,), components, 2, rank)
    target = DiagonalGaussian.point_mass(target_of(seed, (4,)).mean)
    noise = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(law.cross_entropy(target, noise), -law.log_prob(target.mean))


@pytest.mark.parametrize(("latent", "least"), [(2, 5.0), (16, 50.0)])
def test_varies_less_than_the_mean_over_draws(latent, least):
    """Targets where the mixture puts them, no wider than its components."""
    g = torch.Generator().manual_seed(0)
    law = mixture(0, (200,), 8, latent, 0)
    uniform, noise = torch.rand(1, 200, generator=g), torch.randn(1, 200, latent, generator=g)
    mean = law.sample_from(uniform, noise)[0]
    target = DiagonalGaussian(mean, torch.full_like(mean, 0.3))
    noise = torch.randn(100, 200, latent, generator=g)
    controlled = torch.stack([law.cross_entropy(target, e[None]) for e in noise])
    plain = torch.stack([-law.log_prob(x) for x in target.rsample_from(noise)])
    # Measured 9.5 and 99; in 128 dimensions nothing is left of the variance.
    assert plain.var(0).mean() > least * controlled.var(0).mean()


@pytest.mark.parametrize("rank", [0, 2])
def test_samples_match_their_formula(rank):
    law = mixture(0, (2,), 3, 4, rank)
    g = torch.Generator().manual_seed(1)
    uniform, noise = torch.rand(50, 2, generator=g), torch.randn(50, 2, 4 + rank, generator=g)
    assert law.noise_size == 4 + rank
    got, used = law.sample_from(uniform, noise), set()
    for s, i in itertools.product(range(50), range(2)):
        total, k = 0.0, 0
        while (total := total + math.exp(law.log_weights[i, k])) <= uniform[s, i]:
            k += 1
        own, shared = noise[s, i, :4], noise[s, i, 4:]
        want = law.mean[i, k] + law.std[i, k] * own + law.factor[i, k] @ shared
        torch.testing.assert_close(got[s, i], want)
        used.add((i, k))
    assert len(used) == 6


def test_components_are_chosen_by_weight_exactly():
    weights = torch.tensor([0.1, 0.0, 0.4, 0.3, 0.2, 0.0])
    place = torch.arange(6.0)[:, None]
    logs = weights.log().clamp_min(-1e4)  # finite, and zero as weights
    law = GaussianMixture(logs, place, torch.ones(6, 1), torch.zeros(6, 1, 0))
    uniform = (torch.arange(100) + 0.5) / 100
    samples = law.sample_from(uniform, torch.zeros(100, 1))
    counts = torch.bincount(samples[:, 0].long(), minlength=6)
    assert counts.tolist() == [10, 0, 40, 30, 20, 0]


def test_the_largest_uniform_number_chooses_the_last_component():
    """Also in float32, where the weights may sum to less than that number."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 7, generator=generator).float()
    place = torch.arange(7).float()[:, None].expand(2000, 7, 1)
    nothing = torch.zeros(2000, 7, 1, 0).float()
    law = GaussianMixture(logits.log_softmax(-1), place, torch.ones_like(place), nothing)
    below_one = torch.full((1, 2000), 1 - 2**-24).float()
    samples = law.sample_from(below_one, torch.zeros(1, 2000, 1).float())
    assert (samples == 6).all()


def test_samples_have_the_covariance_exactly():
    law = mixture(0, (), 1, 3, 2)
    noise = signs(law.noise_size)
    samples = law.sample_from(torch.zeros(len(noise)), noise)
    torch.testing.assert_close(samples.mean(0), law.mean[0])
    torch.testing.assert_close(samples.T.cov(correction=0), covariances(law)[0])


@pytest.mark.parametrize("rank", [0, 1])
def test_derivatives(rank):
    law, target = mixture(0, (2,), 3, 2, rank), target_of(0, (2,))
    noise = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    inputs = [x.requires_grad_() for x in (law.log_weights, law.mean, law.std, law.factor)]
    location, spread = target.mean.requires_grad_(), target.std.requires_grad_()

    def cross_entropy(*tensors):
        target = DiagonalGaussian(*tensors[4:])
        return GaussianMixture(*tensors[:4]).cross_entropy(target, noise)

    assert torch.autograd.gradcheck(cross_entropy, (*inputs, location, spread))
    assert torch.autograd.gradcheck(
        lambda *tensors: GaussianMixture(*tensors[:4]).log_prob(tensors[4]), (*inputs, location)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1])
def test_finite_far_from_all_components(rank, dtype):
    law, noise = mixture(0, (1,), 3, 2, rank, std=0.01), torch.ones(1, 1, 2, dtype=dtype)
    inputs = [
        x.to(dtype).requires_grad_() for x in (law.log_weights, law.mean, law.std, law.factor)
    ]
    law = GaussianMixture(*inputs)
    far = torch.full((1, 2), 1e6, dtype=dtype)
    loss = law.cross_entropy(DiagonalGaussian(far, torch.ones_like(far)), noise)
    (loss - law.log_prob(far)).sum().backward()
    assert torch.isfinite(loss).all() and loss > 1e6
    for x in inputs if rank > 0 else inputs[:3]:
        assert torch.isfinite(x.grad).all()
    assert (law.mean.grad != 0).any()


@pytest.mark.parametrize("std", [0.1, 0.01, 0.001])
def test_accurate_in_float32_where_factors_explain_almost_all(std):
    """The usual form of the quadratic is off by 0.01, 1 and 160 nats here."""
    g = torch.Generator().manual_seed(0)
    law = GaussianMixture(
        torch.zeros(50, 1),
        torch.randn(50, 1, 128, generator=g),
        std * (0.5 + torch.rand(50, 1, 128, generator=g)),
        torch.randn(50, 1, 128, 4, generator=g) / 2,
    )
    noise = torch.randn(1, 50, law.noise_size, generator=g)
    z = law.sample_from(torch.zeros(1, 50), noise)[0].float()
    rounded = [x.float() for x in (law.log_weights, law.mean, law.std, law.factor)]
    exact = GaussianMixture(*(x.double() for x in rounded)).log_prob(z.double())
    got = GaussianMixture(*rounded).log_prob(z)
    # Measured 4e-5, 3e-4 and 4e-3, of 100 to 670 nats.
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=max(2e-5 / std, 2e-4))


def test_autocast_does_not_lower_the_precision():
    fields = [x.float() for x in vars(mixture(0, (4,), 3, 2, 1)).values()]
    law, target = GaussianMixture(*fields), target_of(0, (4,))
    target = DiagonalGaussian(target.mean.float(), target.std.float())
    noise = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0)).float()

    def results():
        return [
            law.log_prob(target.mean),
            law.cross_entropy(target, noise[..., :2]),
            law.sample_from(noise[..., 0].sigmoid(), noise),
        ]

    want = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for got, plain in zip(results(), want, strict=True):
            torch.testing.assert_close(got, plain, rtol=0, atol=0)


def test_batches_do_not_broadcast():
    law, target = mixture(0, (4,)), target_of(0, (1,))
    with pytest.raises(TypeCheckError, match="latents"):
        law.log_prob(target.mean)
    with pytest.raises(TypeCheckError, match="target_mean"):
        law.cross_entropy(target, torch.zeros(1, 1, 2))
    with pytest.raises(TypeCheckError, match="uniform"):
        law.sample_from(torch.zeros(3, 1), torch.zeros(3, 1, 3))
    with pytest.raises(TypeCheckError, match="std"):
        GaussianMixture(law.log_weights, law.mean, law.std[:1], law.factor)
