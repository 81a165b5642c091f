"""Use of dimensions, aggregate posterior, principal components: against other formulas."""

import math
import sys

import pytest
import torch
from rounding import normal

from calmkit.diagnostics import (
    latent_use,
    latent_variance,
    principal_map,
    prior_gap,
    tsne_map,
)
from calmkit.distributions import DiagonalGaussian


def posterior(points=40, latent=4):
    """Means of different widths and places, correlated; stds that differ from point to point."""
    mean = normal(points, latent) @ normal(latent, latent, seed=1) + 0.3
    return DiagonalGaussian(mean, 0.1 + normal(points, latent, seed=2).square())


class TestUse:
    def test_is_its_formulas(self):
        q = posterior()
        found = latent_use(q)
        for i in range(4):
            m, s = q.mean[:, i].tolist(), q.std[:, i].tolist()
            mu = sum(m) / 40
            signal, noise = sum((x - mu) ** 2 for x in m) / 40, sum(x**2 for x in s) / 40
            kl = sum((a**2 + b**2 - 1) / 2 - math.log(b) for a, b in zip(m, s, strict=True)) / 40
            assert found.signal[i] == pytest.approx(signal / (signal + noise))
            assert found.kl[i] == pytest.approx(kl)
            assert float(latent_variance(q)[i]) == pytest.approx(signal + noise)

    def test_dimensions_equal_to_the_prior_are_not_active(self):
        mean, std = normal(100, 5), torch.full((100, 5), 0.3)
        mean[:, [1, 4]], std[:, [1, 4]] = 0.0, 1.0
        found = latent_use(DiagonalGaussian(mean, std))
        assert found.is_active == (True, False, True, True, False)
        assert found.active == 3 and found.is_bad
        assert found.kl[1] == found.kl[4] == 0.0

    def test_scale_does_not_matter_to_what_is_active(self):
        q = posterior()
        scaled = latent_use(DiagonalGaussian(50 * q.mean, 50 * q.std))
        assert scaled.signal == pytest.approx(latent_use(q).signal)

    def test_point_masses_are_all_signal(self):
        found = latent_use(DiagonalGaussian.point_mass(normal(9, 2)))
        assert found.signal == pytest.approx((1.0, 1.0)) and found.kl == (math.inf, math.inf)

    def test_a_constant_carries_nothing(self):
        found = latent_use(DiagonalGaussian.point_mass(torch.ones(3, 2)))
        assert found.signal == (0.0, 0.0) and found.active == 0


class TestPrior:
    def test_is_the_kl_of_the_matched_gaussian(self):
        """Against torch's KL of two multivariate Gaussians."""
        q = posterior()
        found = prior_gap(q)
        mu = q.mean.mean(dim=0)
        covariance = torch.cov(q.mean.T, correction=0) + q.std.square().mean(dim=0).diag()
        matched = torch.distributions.MultivariateNormal(mu, covariance)
        prior = torch.distributions.MultivariateNormal(torch.zeros(4), torch.eye(4))
        whole = float(torch.distributions.kl_divergence(matched, prior))
        assert sum(found.marginal) + found.total_correlation == pytest.approx(whole)
        for i in range(4):
            one = torch.distributions.Normal(mu[i], covariance[i, i].sqrt())
            standard = torch.distributions.Normal(0.0, 1.0)
            want = float(torch.distributions.kl_divergence(one, standard))
            assert found.marginal[i] == pytest.approx(want)
        assert found.mean == pytest.approx(tuple(mu.tolist()))
        assert found.std == pytest.approx(tuple(covariance.diag().sqrt().tolist()))

    def test_independent_dimensions_have_no_total_correlation(self):
        corners = torch.tensor([[a, b] for a in (-3.0, 3.0) for b in (-1.0, 1.0)])
        found = prior_gap(DiagonalGaussian.point_mass(corners))
        assert found.total_correlation == pytest.approx(0.0, abs=1e-12)
        assert found.marginal == pytest.approx((4 - math.log(3), 0.0))

    def test_fewer_points_than_dimensions_are_singular_not_an_error(self):
        found = prior_gap(DiagonalGaussian.point_mass(normal(3, 5)))
        assert found.total_correlation == math.inf and math.isfinite(sum(found.marginal))


@pytest.mark.parametrize("function", [latent_use, prior_gap])
@pytest.mark.parametrize("shape", [(1, 3), (2, 4, 3)])
def test_refuses_what_is_no_set_of_points(function, shape):
    with pytest.raises(ValueError, match=r"posterior must have shape \(points, latent\)"):
        function(DiagonalGaussian(torch.zeros(shape), torch.ones(shape)))


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
