"""Maps of latents: against eigenvectors, and clusters that stay together."""

import math
import sys

import pytest
import torch
from known_points import posterior
from rounding import normal

from calmkit.diagnostics import (
    principal_map,
    tsne_map,
)


class TestMaps:
    def test_principal_components_are_eigenvectors_of_the_covariance(self):
        latents = posterior().mean
        found = principal_map(latents)
        covariance = torch.cov(latents.T, correction=0)
        torch.testing.assert_close(covariance @ found.directions[0],
                                   found.variances[0] * found.directions[0])  # fmt: skip
        torch.testing.assert_close(covariance @ found.directions[1],
                                   found.variances[1] * found.directions[1])  # fmt: skip
        values = torch.linalg.eigvalsh(covariance).flip(0)
        torch.testing.assert_close(found.variances, values)
        torch.testing.assert_close(found.directions @ found.directions.T, torch.eye(2))
        want = torch.stack([(latents - latents.mean(dim=0)) @ u for u in found.directions], dim=1)
        torch.testing.assert_close(found.place(latents), want)

    def test_the_sign_has_a_rule(self):
        latents = posterior().mean
        found = principal_map(latents)
        for direction in found.directions:
            assert direction[direction.abs().argmax()] > 0
        torch.testing.assert_close(principal_map(-latents).directions, found.directions)

    def test_other_latents_are_placed_on_the_same_map(self):
        found = principal_map(posterior().mean)
        torch.testing.assert_close(found.place(found.mean + 2 * found.directions[1]),
                                   torch.tensor([0.0, 2.0]))  # fmt: skip

    @pytest.mark.parametrize("shape", [(1, 3), (5, 1)])
    def test_refuses_what_has_no_plane(self, shape):
        with pytest.raises(ValueError, match="at least 2 points of 2 dimensions"):
            principal_map(torch.zeros(shape))

    def test_tsne_keeps_clusters_and_repeats_itself(self):
        pytest.importorskip("sklearn")
        latents = torch.cat((normal(20, 6), 40 + normal(20, 6, seed=1)))
        placed = tsne_map(latents)
        assert placed.shape == (40, 2) and placed.dtype == latents.dtype
        assert torch.equal(placed, tsne_map(latents))
        distances = torch.cdist(placed, placed)
        distances.fill_diagonal_(math.inf)
        nearest = distances.argmin(dim=1)
        assert torch.equal(nearest >= 20, torch.arange(40) >= 20)

    def test_tsne_of_few_points_looks_at_fewer_neighbours(self):
        pytest.importorskip("sklearn")
        assert torch.isfinite(tsne_map(normal(3, 2))).all()

    def test_without_the_library_the_remedy_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ImportError, match=r"pip install 'calmkit\[diagnostics\]'"):
            tsne_map(torch.zeros(5, 2))

    def test_refuses_too_few_points(self):
        with pytest.raises(ValueError, match="at least 3 points; got 2"):
            tsne_map(torch.zeros(2, 2))
