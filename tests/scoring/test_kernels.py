"""Kernels: their formulas, the nodes they share, refusals, and the median heuristic."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy import integrate

from calmkit.scoring.kernels import (
    GaussianKernel,
    InverseMultiquadricKernel,
    LaplaceKernel,
    median_heuristic,
)

FORMULAS = {
    GaussianKernel: lambda r, b: math.exp(-(r**2) / (2 * b**2)),
    LaplaceKernel: lambda r, b: math.exp(-r / b),
    InverseMultiquadricKernel: lambda r, b: 1 / math.sqrt(1 + (r / b) ** 2),
}
BANDWIDTHS = [1.0, 3, 0.2, [0.5], (0.5, 1.0, 2.0), [1e-2, 1.0, 30.0]]

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
def test_bandwidths_share_nodes(kind):
    one, three = (kind(b).mixture(torch.zeros(()))[0] for b in (1.0, [0.5, 1.0, 2.0]))
    assert len(three) <= len(one) + 7


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


@pytest.mark.parametrize("kind", [GaussianKernel, LaplaceKernel])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 2.0, 20.0])
def test_the_sharp_kernel_is_the_integral_of_s_times_the_kernel(kind, ratio):
    area, _ = integrate.quad(lambda s: s * FORMULAS[kind](s, 1.0), ratio, np.inf, epsabs=0.0)
    found = kind().log_sharp(torch.tensor(ratio)).exp()
    torch.testing.assert_close(found, torch.tensor(area), rtol=1e-7, atol=0.0)


def test_a_kernel_without_a_sharp_one_says_so():
    with pytest.raises(ValueError, match=r"kernel must have a sharp companion.*InverseMulti"):
        InverseMultiquadricKernel().log_sharp(torch.tensor(1.0))
