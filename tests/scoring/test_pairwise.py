"""Distances between samples: each pair once, accurate also where points nearly coincide."""

import itertools

import pytest
import torch

from calmkit.scoring.pairwise import outcome_distances, pair_distances


def points(count, batch, offset):
    """Points a thousandth apart, around an offset."""
    generator = torch.Generator().manual_seed(count)
    return offset + 1e-3 * torch.randn(count, *batch, 5, generator=generator)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("batch", [(), (3,), (2, 0)], ids=str)
def test_pairs_in_order(offset, batch):
    """In float32: |x|^2 + |y|^2 - 2 x.y would leave nothing of distances so small."""
    x = points(30, batch, offset).float()
    want = [(a.double() - b.double()).norm(dim=-1) for a, b in itertools.combinations(x, 2)]
    torch.testing.assert_close(pair_distances(x).double(), torch.stack(want), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_outcomes(offset):
    x, y = points(30, (3,), offset).float(), points(40, (3,), offset).float()
    want = (x[:, None].double() - y.double()).norm(dim=-1)
    torch.testing.assert_close(outcome_distances(x, y).double(), want, rtol=1e-5, atol=0.0)


def test_ties_have_distance_and_gradient_zero():
    x = torch.ones(3, 2, requires_grad=True)
    distances = pair_distances(x)
    distances.sum().backward()
    assert (distances == 0).all() and (x.grad == 0).all()
