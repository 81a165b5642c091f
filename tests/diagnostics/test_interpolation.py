"""Interpolation on an autoencoder whose decoder is known."""

import pytest
import torch
from rounding import RoundingAutoencoder, normal

from calmkit.diagnostics import interpolate


class TestInterpolation:
    def test_goes_straight_from_end_to_end(self):
        autoencoder = RoundingAutoencoder(2, 9)
        first, last = torch.tensor([[0.0, 8.0]]), torch.tensor([[8.0, 8.0]])
        found = interpolate(autoencoder, first, last, steps=5)
        assert found.tokens.tolist() == [[[0, 8]], [[2, 8]], [[4, 8]], [[6, 8]], [[8, 8]]]
        assert found.foreign == 1 / 2

    def test_ends_are_exact(self):
        first, last = normal(50, 3), 100 * normal(50, 3, seed=1)
        seen = []

        class Recorder(RoundingAutoencoder):
            def decode(self, latents):
                seen.append(latents)
                return super().decode(latents)

        interpolate(Recorder(3, 4), first, last, steps=7)
        way = torch.cat(seen).view(7, 50, 3)
        assert torch.equal(way[0], first) and torch.equal(way[-1], last)
        for step in range(7):
            t = step / 6
            torch.testing.assert_close(way[step], (1 - t) * first + t * last)

    def test_refuses_a_way_without_anything_between(self):
        with pytest.raises(ValueError, match="steps must be at least 3, with both ends; got 2"):
            interpolate(RoundingAutoencoder(1, 2), torch.zeros(1, 1), torch.ones(1, 1), steps=2)
