"""Kernels: loops, positive definite matrices, mixtures of Gaussians, the median heuristic."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from calmkit.scoring.kernels import (
    GaussianKernel,
    InverseMultiquadricKernel,
    Kernel,
    LaplaceKernel,
    median_heuristic,
)

FORMULAS = {
    GaussianKernel: lambda r, b: math.exp(-(r**2) / (2 * b**2)),
    LaplaceKernel: lambda r, b: math.exp(-r / b),
    InverseMultiquadricKernel: lambda r, b: 1 / math.sqrt(1 + (r / b) ** 2),
}
BANDWIDTHS = [1.0, 3, 0.2, [0.5], (0.5, 1.0, 2.0), [1e-2, 1.0, 30.0]]
# The accuracy that the module states, of each bandwidth.
STATED = {torch.float64: 1e-8, torch.float32: 2e-6}

every_kernel = pytest.mark.parametrize("kind", FORMULAS, ids=lambda kind: kind.__name__)
every_bandwidth = pytest.mark.parametrize("bandwidths", BANDWIDTHS, ids=str)


def as_list(bandwidths):
    return list(bandwidths) if isinstance(bandwidths, list | tuple) else [bandwidths]


@every_kernel
@every_bandwidth
@pytest.mark.parametrize("distance", [0.0, 1e-3, 0.3, 1.0, 5.0, 1e4])
def test_matches_its_formula(kind, bandwidths, distance):
    kernel = kind(bandwidths)
    want = sum(FORMULAS[kind](distance, b) for b in as_list(bandwidths))
    got = kernel.value(torch.tensor(distance))
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-12, atol=1e-300)
    complement = kernel.dissimilarity(torch.tensor(distance))
    torch.testing.assert_close(complement, len(as_list(bandwidths)) - torch.tensor(want))
    assert kernel.at_zero == len(as_list(bandwidths))


@every_kernel
@given(st.lists(st.floats(0.1, 1.0), min_size=1, max_size=3), st.integers(1, 3), st.data())
def test_matrices_are_symmetric_and_positive_definite(kind, bandwidths, latent, data):
    """Distinct points on a grid, far enough apart for the least eigenvalue to be seen."""
    cell = st.tuples(*[st.integers(-3, 3)] * latent)
    points = data.draw(st.lists(cell, min_size=1, max_size=7, unique=True))
    points = torch.tensor(points, dtype=torch.float64)
    matrix = kind(bandwidths).value(torch.cdist(points, points))
    assert torch.equal(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix).min() > 1e-4


@every_kernel
def test_equal_points_make_the_matrix_singular(kind):
    points = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    least = torch.linalg.eigvalsh(kind().value(torch.cdist(points, points))).min()
    torch.testing.assert_close(least, torch.tensor(0.0))


@dataclass(frozen=True)
class CubicExponential(Kernel):
    """exp(-r^3), which is no kernel."""

    def exponent(self, ratio):
        return ratio**3

    def mixture(self, like):
        raise NotImplementedError


def test_a_function_that_is_no_kernel_has_a_negative_eigenvalue():
    points = torch.linspace(0, 1, 5)[:, None]
    matrix = CubicExponential().value(torch.cdist(points, points))
    assert torch.linalg.eigvalsh(matrix).min() < -1e-3


@every_kernel
@every_bandwidth
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mixture_of_gaussians_is_the_kernel(kind, bandwidths, dtype):
    """At every distance from 0 to a million bandwidths; at distance 0 exactly."""
    kernel = kind(bandwidths)
    nodes, weights = (x.double() for x in kernel.mixture(torch.zeros((), dtype=dtype)))
    ratio = torch.cat((torch.zeros(1), torch.logspace(-9, 6, 500)))
    mixed = (weights * (-nodes * ratio[:, None].square()).exp()).sum(dim=-1)
    tolerance = STATED[dtype] * kernel.at_zero
    torch.testing.assert_close(mixed, kernel.value(ratio * kernel.unit), rtol=0, atol=tolerance)
    rounding = 10 * torch.finfo(dtype).eps * kernel.at_zero
    assert abs(float(mixed[0]) - kernel.at_zero) < rounding


@every_kernel
def test_bandwidths_share_nodes(kind):
    one, three = (kind(b).mixture(torch.zeros(()))[0] for b in (1.0, [0.5, 1.0, 2.0]))
    assert len(three) <= len(one) + 7


@every_kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e-6, 1.0, 1e8, 1e30])
def test_finite_value_and_gradient(kind, dtype, distance):
    r = torch.tensor(distance, dtype=dtype, requires_grad=True)
    value = kind([0.1, 10.0]).dissimilarity(r)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(r.grad)
    assert value.dtype == dtype


@every_kernel
def test_small_distances_do_not_cancel(kind):
    r = torch.tensor([1e-5, 1e-3, 0.1])
    single = kind().dissimilarity(r.float())
    torch.testing.assert_close(single.double(), kind().dissimilarity(r), rtol=1e-6, atol=0)
    series = {GaussianKernel: 0.5e-10, LaplaceKernel: 1e-5, InverseMultiquadricKernel: 0.5e-10}
    assert float(single[0]) == pytest.approx(series[kind], rel=1e-4)


@every_kernel
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, [1.0, 0.0]])
def test_bad_bandwidths(kind, bad):
    with pytest.raises(ValueError, match="bandwidths must be positive and finite; got"):
        kind(bad)


@every_kernel
def test_no_bandwidths(kind):
    with pytest.raises(ValueError, match="bandwidths must hold at least one"):
        kind([])


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 1000), st.floats(0.01, 100.0))
def test_median_of_all_pairs(count, latent, seed, factor):
    points = torch.randn(count, latent, generator=torch.Generator().manual_seed(seed))
    pairs = itertools.combinations(points.numpy(), 2)
    want = np.median([np.linalg.norm(a - b) for a, b in pairs])
    assert median_heuristic(points) == pytest.approx(want)
    assert median_heuristic(factor * points + 3) == pytest.approx(factor * want)


def test_median_leaves_ties_out():
    points = torch.tensor([[0.0], [0.0], [0.0], [0.0], [3.0]])
    assert median_heuristic(points) == 3.0
    assert GaussianKernel(median_heuristic(points.bfloat16())).unit == 3.0


@pytest.mark.parametrize("count", [0, 1, 4])
def test_median_needs_distinct_points(count):
    with pytest.raises(ValueError, match=rf"points must hold at least 2 distinct.*got {count}"):
        median_heuristic(torch.ones(count, 3))


def test_median_refuses_bad_input():
    with pytest.raises(ValueError, match="points must be finite"):
        median_heuristic(torch.tensor([[0.0], [math.nan]]))
    with pytest.raises(TypeCheckError):
        median_heuristic(torch.zeros(2, 3, 4))
