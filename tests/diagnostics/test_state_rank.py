"""Effective rank of states whose directions are known."""

import math

import pytest
import torch
from rounding import normal

from calmkit.diagnostics import state_rank


def states(sizes, points=40, hidden=6):
    """Orthogonal directions of given singular values, with mean zero."""
    left = torch.linalg.qr(torch.cat([torch.ones(points, 1), normal(points, len(sizes))], 1))[0]
    right = torch.linalg.qr(normal(hidden, hidden, seed=1))[0][: len(sizes)]
    return left[:, 1:] * torch.tensor(sizes) @ right


class TestRank:
    def test_equal_directions_are_counted(self):
        for number in (1, 2, 5):
            found = state_rank(states([3.0] * number))
            # Other singular values are 1e-8 by rounding.
            assert found.effective == pytest.approx(number, rel=1e-5)
            assert found.possible == 6 and found.common == pytest.approx(0, abs=1e-12)

    def test_is_its_formula(self):
        sizes = [4.0, 2.0, 1.0]
        shares = [size / 7 for size in sizes]
        want = math.exp(-sum(p * math.log(p) for p in shares))
        assert state_rank(states(sizes)).effective == pytest.approx(want, rel=1e-5)

    def test_fewer_points_than_features(self):
        x = normal(4, 9)
        sigma = torch.linalg.svdvals(x - x.mean(dim=0))
        shares = (sigma / sigma.sum())[:3]
        found = state_rank(x)
        assert found.effective == pytest.approx(float((-shares * shares.log()).sum().exp()))
        assert found.possible == 3

    def test_what_all_points_share_is_told_apart(self):
        """A mean of norm 3 beside a mean square of 1."""
        x = states([math.sqrt(40.0)])
        found = state_rank(x + 3 * torch.nn.functional.one_hot(torch.tensor(2), 6))
        assert found.common == pytest.approx(0.9)
        assert found.effective == pytest.approx(1.0, rel=1e-5)

    def test_equal_states_have_none(self):
        found = state_rank(torch.ones(5, 3))
        assert (found.effective, found.common) == (0.0, pytest.approx(1.0)) and found.is_bad
        assert state_rank(torch.zeros(5, 3)).common == 0.0

    def test_one_point_is_refused(self):
        with pytest.raises(ValueError, match="at least 2 points to differ; got 1"):
            state_rank(torch.ones(1, 3))
