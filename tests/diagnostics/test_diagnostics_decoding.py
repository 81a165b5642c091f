"""Next-chunk accuracy, collisions and neighbours: by enumeration and against loops."""

import itertools
import math

import pytest
import torch
from rounding import RoundingAutoencoder, normal, random_tokens

from calmkit.diagnostics import (
    collision_calibration,
    nearest_chunks,
    next_chunk_accuracy,
)


class TestNextChunk:
    def test_is_its_formula(self):
        autoencoder = RoundingAutoencoder(3, 4)
        samples, tokens = 2 + 1.5 * normal(5, 12, 3), random_tokens(12, 3, vocab=4)
        found = next_chunk_accuracy(autoencoder, samples, tokens, torch.arange(12))
        right, drawn, places = 0, 0, [0, 0, 0]
        for t, k in itertools.product(range(12), range(3)):
            x = samples[:, t, k].tolist()
            decoded = [min(max(round(v), 0), 3) for v in (sum(x) / 5, *x)]
            right += decoded[0] == tokens[t, k]
            places[k] += int(decoded[0] == tokens[t, k])
            drawn += sum(int(d == tokens[t, k]) for d in decoded[1:])
        assert found.of_mean.value == pytest.approx(float(right) / 36)
        assert found.of_draws.value == pytest.approx(drawn / 180)
        assert found.by_place == pytest.approx([place / 12 for place in places])
        flat = tokens.flatten().tolist()
        assert found.most_frequent == pytest.approx(max(map(flat.count, flat)) / 36)
        assert 0 < found.of_mean.value < 1

    def test_the_mean_of_two_plausible_chunks_is_neither(self):
        samples = torch.tensor([0.0, 4.0]).view(2, 1, 1).expand(2, 6, 1)
        tokens = torch.tensor([[0], [4]] * 3)
        found = next_chunk_accuracy(RoundingAutoencoder(1, 5), samples, tokens, torch.arange(6))
        assert (found.of_mean.value, found.of_draws.value) == (0.0, 0.5)


class TestCollisions:
    ATOMS = ((0, 0), (0, 0), (0, 1), (2, 1))

    def every(self):
        """(draws, truth): each combination of two draws and what came, from the atoms."""
        cases = torch.tensor(list(itertools.product(self.ATOMS, repeat=3)))
        return cases[:, :2].transpose(0, 1), cases[:, 2]

    def test_calibrated_by_enumeration(self):
        draws, truth = self.every()
        found = collision_calibration(draws, truth, torch.arange(64))
        for n, want in enumerate((9 / 16 + 1 / 16, 4 / 16 + 1 / 16 + 1 / 16)):
            assert found.collision[n].value == pytest.approx(want)  # sum_x P(x)^2
            assert found.hit[n].value == pytest.approx(want)
            assert found.excess[n].value == pytest.approx(0.0, abs=1e-15)
        assert not found.is_bad

    def test_other_laws_are_not(self):
        draws, truth = self.every()
        sure = collision_calibration(torch.zeros_like(draws), truth, torch.arange(64))
        assert sure.excess[1].value == pytest.approx(0.5) and sure.is_bad
        diffuse = draws.clone()
        diffuse[1] += 7
        found = collision_calibration(diffuse, truth, torch.arange(64))
        assert found.collision[0].value == 0 and found.excess[0].value < 0 and found.is_bad

    def test_is_its_formula(self):
        draws, truth = random_tokens(4, 9, 3, vocab=2), random_tokens(9, 3, vocab=2, seed=1)
        found = collision_calibration(draws, truth, torch.arange(9))
        for n in (1, 2, 3):
            hit = collision = 0
            for t in range(9):
                x = [tuple(draws[j, t, :n].tolist()) for j in range(4)]
                hit += sum(a == tuple(truth[t, :n].tolist()) for a in x)
                collision += sum(a == b for a, b in itertools.combinations(x, 2))
            assert found.hit[n - 1].value == pytest.approx(hit / 36)
            assert found.collision[n - 1].value == pytest.approx(collision / 54)
            assert found.excess[n - 1].value == pytest.approx(collision / 54 - hit / 36)


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
