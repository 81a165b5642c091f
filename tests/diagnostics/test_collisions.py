"""Collisions: by enumeration and against loops."""

import itertools

import pytest
import torch
from rounding import random_tokens

from calmkit.diagnostics import (
    collision_calibration,
)


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
