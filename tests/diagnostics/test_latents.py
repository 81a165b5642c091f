"""Use of dimensions and aggregate posterior: against other formulas."""

import math

import pytest
import torch
from known_points import posterior
from rounding import normal

from calmkit.diagnostics import (
    latent_use,
    latent_variance,
    prior_gap,
)
from calmkit.distributions import DiagonalGaussian


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
