"""The real chunks nearest to a sample: against a loop."""

import math

import pytest
from rounding import normal

from calmkit.diagnostics import (
    nearest_chunks,
)


class TestNeighbours:
    def test_are_those_of_a_loop(self):
        latents, real, bank = normal(6, 3), normal(5, 3, seed=1), normal(8, 3, seed=2)
        found = nearest_chunks(latents, real, bank, count=3)
        for t, z in enumerate(latents.tolist()):
            order = sorted((math.dist(z, m), j) for j, m in enumerate(bank.tolist()))[:3]
            assert found.index[t].tolist() == [j for _, j in order]
            assert found.distance[t].tolist() == pytest.approx([d for d, _ in order])
        for t, z in enumerate(real.tolist()):
            want = min(math.dist(z, m) for m in bank.tolist())
            assert float(found.real_distance[t]) == pytest.approx(want)
        nearest, reals = (
            sorted(found.distance[:, 0].tolist()),
            sorted(found.real_distance.tolist()),
        )
        # torch's median of an even count is the lower of the middle two.
        assert found.ratio == pytest.approx(nearest[2] / reals[2])

    def test_latents_off_the_text_are_found(self):
        bank, real = normal(50, 3), normal(20, 3, seed=1)
        assert nearest_chunks(20 + normal(20, 3, seed=2), real, bank).is_bad
        assert not nearest_chunks(normal(20, 3, seed=2), real, bank).is_bad

    @pytest.mark.parametrize("count", [0, 3])
    def test_refuses_more_chunks_than_there_are(self, count):
        with pytest.raises(ValueError, match=r"count must be in \[1, 2\], the bank's chunks"):
            nearest_chunks(normal(4, 3), normal(4, 3), normal(2, 3), count=count)

    @pytest.mark.parametrize(("latents", "real"), [(0, 4), (4, 0)])
    def test_refuses_empty_sets(self, latents, real):
        with pytest.raises(ValueError, match="latents and real must not be empty"):
            nearest_chunks(normal(latents, 3), normal(real, 3), normal(5, 3), count=1)
