"""Votes of draws: by loops, at ties, and the alarm for identical draws."""

from collections import Counter

import pytest
import torch
from rounding import random_tokens

from calmkit.diagnostics import sample_votes


class TestVotes:
    def test_are_counted_in_a_loop(self):
        draws, truth = random_tokens(7, 12, 2, vocab=2), random_tokens(12, 2, vocab=2, seed=1)
        found = sample_votes(draws, truth, torch.arange(12))
        for k in (1, 2):
            top = margin = vote = pairs = 0
            for t in range(12):
                outcomes = [tuple(x) for x in draws[:, t, :k].tolist()]
                counts = Counter(outcomes)
                (first, c1), *rest = counts.most_common()
                c2 = rest[0][1] if rest else 0
                top, margin = top + c1 / 7, margin + (c1 - c2) / 7
                vote += first == tuple(truth[t, :k].tolist())
                pairs += sum(c * (c - 1) for c in counts.values()) / 42
            assert found.top[k - 1].value == pytest.approx(top / 12)
            assert found.margin[k - 1].value == pytest.approx(margin / 12)
            assert found.vote[k - 1].value == pytest.approx(vote / 12)
            assert found.agreement[k - 1].value == pytest.approx(pairs / 12)
        assert found.draws == 7 and not found.is_deterministic

    def test_a_tie_has_no_margin(self):
        draws = torch.tensor([[1, 1], [2, 2], [1, 1], [2, 2]])[:, None].expand(4, 3, 2)
        found = sample_votes(draws, torch.full((3, 2), 1), torch.arange(3))
        assert found.margin[1].value == 0 and found.top[1].value == 0.5
        assert found.vote[1].value == 1.0  # the first of equals

    def test_identical_draws_raise_the_alarm(self):
        truth = random_tokens(12, 2)
        equal = random_tokens(1, 12, 2, seed=1).expand(5, 12, 2)
        found = sample_votes(equal, truth, torch.arange(12))
        assert found.is_deterministic and found.is_bad
        assert "all 5 draws are equal at every point" in found.verdict
        one_differs = equal.clone()
        one_differs[4, 11, 1] += 1
        assert not sample_votes(one_differs, truth, torch.arange(12)).is_deterministic

    def test_a_model_that_is_always_right_is_not_suspected(self):
        truth = random_tokens(12, 2)
        found = sample_votes(truth.expand(5, 12, 2), truth, torch.arange(12))
        assert not found.is_deterministic and not found.is_bad
        assert found.agreement[1].value == found.margin[1].value == 1.0
