"""The noise curve of an autoencoder whose decoder is known."""

import math
from statistics import NormalDist

import pytest
import torch
from rounding import RoundingAutoencoder, normal, random_tokens

from calmkit.diagnostics import noise_curve
from calmkit.distributions import DiagonalGaussian


class TestNoise:
    def test_known_robustness(self):
        """Tokens 0 and 1, half and half: v = 1/4 + s^2, wrong beyond 1/2 on one side."""
        std, count = 0.3, 2000
        autoencoder = RoundingAutoencoder(1, 2, std=std)
        tokens = torch.tensor([[0], [1]])
        # Quantiles in place of draws: shares are exact to one in `count`.
        quantiles = [NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
        noise = torch.tensor(quantiles)[:, None, None].expand(count, 2, 1)
        sizes = (0.0, 0.4, 1.0, 2.5)
        found = noise_curve(autoencoder, autoencoder.encode(tokens), tokens, noise, sizes=sizes)
        spread = math.sqrt(0.25 + std**2)
        want = [1.0, *(NormalDist().cdf(0.5 / (size * spread)) for size in sizes[1:])]
        assert found.accuracy == pytest.approx(want, abs=1 / count)
        assert found.from_mean == 1.0
        assert found.from_posterior == pytest.approx(NormalDist().cdf(0.5 / std), abs=1 / count)
        assert found.posterior_size == pytest.approx(std / spread)

    def test_is_its_formula(self):
        """accuracy(t) = mean [decode(m + t sqrt(v) e)_k = x_k], v_i = Var[m_i] + E[s_i^2]."""
        autoencoder = RoundingAutoencoder(3, 5, std=0.2)
        tokens, noise = random_tokens(7, 3), normal(4, 7, 3)
        found = noise_curve(autoencoder, autoencoder.encode(tokens), tokens, noise, sizes=(0.3,))
        right, own = 0, 0.0
        for k in range(3):
            column = [float(x) for x in tokens[:, k]]
            mu = sum(column) / 7
            v = sum((x - mu) ** 2 for x in column) / 7 + 0.2**2
            own += 0.2**2 / v / 3
            for e in noise[:, :, k].tolist():
                decoded = [
                    round(x + 0.3 * math.sqrt(v) * y) for x, y in zip(column, e, strict=True)
                ]
                right += sum(min(max(d, 0), 4) == x for d, x in zip(decoded, column, strict=True))
        assert found.accuracy == pytest.approx((right / (3 * 7 * 4),))
        assert 0.5 < found.accuracy[0] < 1
        assert found.posterior_size == pytest.approx(math.sqrt(own))

    def test_points_at_one_place_have_no_spread(self):
        autoencoder, tokens = RoundingAutoencoder(2, 3), torch.ones(4, 2).long()
        found = noise_curve(autoencoder, autoencoder.encode(tokens), tokens, normal(2, 4, 2))
        assert found.posterior_size == 0.0 and set(found.accuracy) == {1.0}

    def test_the_posterior_is_taken_as_it_is_given(self):
        """Chunks that their neighbours move by 2 come back as other tokens."""
        autoencoder, tokens = RoundingAutoencoder(2, 9), random_tokens(6, 2)
        moved = DiagonalGaussian.point_mass(autoencoder.encode(tokens).mean + 2)
        found = noise_curve(autoencoder, moved, tokens, normal(2, 6, 2))
        assert found.from_mean == 0.0 and found.accuracy[0] == 0.0

    @pytest.mark.parametrize("sizes", [(), (-0.1, 0.0), (0.2, 0.1)])
    def test_refuses_sizes_that_make_no_curve(self, sizes):
        with pytest.raises(ValueError, match="sizes must be ascending numbers, at least 0"):
            noise_curve(
                RoundingAutoencoder(1, 2),
                DiagonalGaussian.point_mass(torch.zeros(2, 1)),
                torch.zeros(2, 1).long(),
                normal(1, 2, 1),
                sizes=sizes,
            )
