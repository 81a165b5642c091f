"""Diagonal Gaussians against torch.distributions, loops and moments."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import TypeCheckError
from numpy.polynomial.hermite_e import hermegauss

from calmkit.distributions import DiagonalGaussian

shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)


@st.composite
def gaussians(draw):
    shape = (*draw(shapes), draw(st.integers(1, 4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    log_scale = draw(st.floats(-5.0, 5.0))
    mean = torch.randn(shape, generator=generator)
    std = (torch.randn(shape, generator=generator) + log_scale).exp()
    return DiagonalGaussian(mean, std), torch.randn(shape, generator=generator)


@given(gaussians())
def test_log_prob_is_a_sum_of_scalar_log_densities(problem):
    gaussian, value = problem
    want = torch.zeros(value.shape[:-1])
    for index in itertools.product(*map(range, value.shape)):
        m, s, v = (float(x[index]) for x in (gaussian.mean, gaussian.std, value))
        want[index[:-1]] += -0.5 * ((v - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian.log_prob(value), want)


@given(gaussians())
def test_kl_against_torch(problem):
    gaussian, _ = problem
    normal = torch.distributions.Normal(gaussian.mean, gaussian.std)
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    want = torch.distributions.kl_divergence(normal, standard)
    torch.testing.assert_close(gaussian.kl_to_standard_normal(), want)


@given(gaussians())
def test_kl_is_the_mean_log_ratio(problem):
    """KL = E_self[log self - log N(0, 1)], by Gauss-Hermite quadrature (exact for quadratics)."""
    gaussian, _ = problem
    nodes, weights = (torch.tensor(x) for x in hermegauss(4))
    weights = weights / weights.sum()
    noise = nodes.view(-1, *[1] * gaussian.mean.ndim).expand(-1, *gaussian.mean.shape)
    value = gaussian.rsample_from(noise)
    one = DiagonalGaussian(gaussian.mean[..., None], gaussian.std[..., None])
    zero = torch.zeros_like(one.mean)
    standard = DiagonalGaussian(zero, torch.ones_like(zero))
    ratio = torch.stack(
        [one.log_prob(v[..., None]) - standard.log_prob(v[..., None]) for v in value]
    )
    want = torch.tensordot(weights, ratio, dims=1)
    torch.testing.assert_close(gaussian.kl_to_standard_normal(), want, rtol=1e-9, atol=1e-9)


@given(gaussians())
def test_standard_normal_has_no_divergence(problem):
    gaussian, _ = problem
    standard = DiagonalGaussian(torch.zeros_like(gaussian.mean), torch.ones_like(gaussian.std))
    torch.testing.assert_close(standard.kl_to_standard_normal(), torch.zeros_like(gaussian.mean))
    assert (gaussian.kl_to_standard_normal() >= 0).all()


def test_rsample_is_affine_and_differentiable():
    mean = torch.tensor([1.0, -2.0], requires_grad=True)
    std = torch.tensor([0.5, 3.0], requires_grad=True)
    noise = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    sample = DiagonalGaussian(mean, std).rsample_from(noise)
    torch.testing.assert_close(sample, torch.tensor([[1.5, 4.0], [1.0, -5.0]]))
    sample.sum().backward()
    torch.testing.assert_close(mean.grad, torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(std.grad, torch.tensor([1.0, 1.0]))


def test_sample_has_the_moments_and_no_gradient():
    gaussian = DiagonalGaussian(
        torch.tensor([[1.0, -2.0]], requires_grad=True), torch.tensor([[0.5, 3.0]])
    )
    draws = gaussian.sample(40_000, torch.Generator().manual_seed(0))
    assert draws.shape == (40_000, 1, 2)
    assert not draws.requires_grad
    # Five standard errors: a chance of 6e-7 for each of the four comparisons.
    error = 5 * gaussian.std / 200
    assert ((draws.mean(dim=0) - gaussian.mean).abs() < error).all()
    assert ((draws.std(dim=0) - gaussian.std).abs() < error / math.sqrt(2)).all()


def test_sample_is_a_function_of_the_generator():
    gaussian = DiagonalGaussian(torch.zeros(3, 2), torch.ones(3, 2))
    first, again, other = (
        gaussian.sample(4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_an_index_is_one_of_the_batch():
    mean, std = torch.randn(2, 3, 4), torch.rand(2, 3, 4)
    some = DiagonalGaussian(mean, std)[:, 1:]
    assert torch.equal(some.mean, mean[:, 1:]) and torch.equal(some.std, std[:, 1:])
    chosen = torch.tensor([True, False])
    assert torch.equal(DiagonalGaussian(mean, std)[chosen].std, std[chosen])


def test_point_mass_always_returns_its_location():
    location = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    draws = DiagonalGaussian.point_mass(location).sample(5)
    torch.testing.assert_close(draws, location.expand(5, 2, 2), rtol=0, atol=0)


def test_point_mass_has_no_density():
    point = DiagonalGaussian.point_mass(torch.zeros(2))
    assert not torch.isfinite(point.log_prob(torch.zeros(2)))
    assert torch.isinf(point.kl_to_standard_normal()).all()


@pytest.mark.parametrize("batch", [(), (2,), (0,), (2, 0)])
def test_shapes(batch):
    gaussian = DiagonalGaussian(torch.zeros(*batch, 3), torch.ones(*batch, 3))
    assert gaussian.sample(4).shape == (4, *batch, 3)
    assert gaussian.sample(0).shape == (0, *batch, 3)
    assert gaussian.log_prob(torch.zeros(*batch, 3)).shape == batch
    assert gaussian.kl_to_standard_normal().shape == (*batch, 3)


@pytest.mark.parametrize("other", [torch.float32, torch.bfloat16])
def test_mean_and_std_have_one_dtype(other):
    with pytest.raises(ValueError, match=f"the same dtype; got {other} and torch.float64"):
        DiagonalGaussian(torch.zeros(3, dtype=other), torch.ones(3))


def test_mean_and_std_are_on_one_device():
    with pytest.raises(ValueError, match="the same device; got cpu and meta"):
        DiagonalGaussian(torch.zeros(3), torch.ones(3, device="meta"))


def test_nothing_broadcasts_silently():
    with pytest.raises(TypeCheckError, match="parameter 'std'"):
        DiagonalGaussian(torch.zeros(2, 3), torch.ones(3))
    gaussian = DiagonalGaussian(torch.zeros(1, 3), torch.ones(1, 3))
    with pytest.raises(TypeCheckError, match="parameter 'value'"):
        gaussian.log_prob(torch.zeros(4, 3))
    with pytest.raises(TypeCheckError, match="parameter 'noise'"):
        gaussian.rsample_from(torch.zeros(7, 4, 3))
    with pytest.raises(TypeCheckError, match="parameter 'noise'"):
        gaussian.rsample_from(torch.zeros(7, 1, 1))


def test_a_tensor_is_a_point_mass_and_a_gaussian_stays_itself():
    location = torch.randn(3, 2)
    point = DiagonalGaussian.of(location)
    assert (point.mean == location).all()
    assert (point.std == 0).all()
    assert DiagonalGaussian.of(point) is point


def test_one_number_is_the_std_of_all_dimensions():
    gaussian = DiagonalGaussian.isotropic(torch.zeros(3, 2, dtype=torch.float32), 0.5)
    assert gaussian.std.dtype == torch.float32
    assert gaussian.std.tolist() == [[0.5, 0.5]] * 3


def test_to_converts_both_tensors():
    gaussian = DiagonalGaussian(torch.randn(3), torch.ones(3)).to(torch.float32)
    assert gaussian.mean.dtype == gaussian.std.dtype == torch.float32
