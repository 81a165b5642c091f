"""Distances of draws to laws, by plain loops and by enumeration."""

import math
from itertools import product

import pytest
import torch


@pytest.fixture
def law_distances(load):
    return load("law_distances")


def test_distances_are_their_formulas(law_distances):
    law = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
    numbers = torch.tensor([[0, 3], [1, 3], [0, 2], [2, 3], [0, 0]])
    wanted = {"total_variation": 0.0, "kl": 0.0, "brier_regret": 0.0}
    for text, q in enumerate(law.tolist()):
        drawn = numbers[:, text].tolist()
        for chunk, truth in enumerate(q):
            n = drawn.count(chunk)
            wanted["total_variation"] += abs(n / 5 - truth) / 2 / 2
            if truth > 0:
                wanted["kl"] += truth * math.log(truth / ((n + 0.5) / (5 + 2))) / 2
            pairs = sum(a == b == chunk for i, a in enumerate(drawn) for b in drawn[:i])
            wanted["brier_regret"] += 100 * (pairs / 10 - 2 * n / 5 * truth + truth**2) / 2
    assert law_distances.distances(numbers, law) == pytest.approx(wanted, rel=1e-12)


def test_brier_regret_is_unbiased_and_total_variation_is_too_high(law_distances):
    law, model = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([0.2, 0.5, 0.3])
    expected = {"total_variation": 0.0, "brier_regret": 0.0}
    for draws in product(range(3), repeat=3):
        found = law_distances.distances(torch.tensor(draws)[:, None], law)
        for name in expected:
            expected[name] += float(model[list(draws)].prod()) * found[name]
    regret = 100 * float((law - model).square().sum())
    assert expected["brier_regret"] == pytest.approx(regret, rel=1e-12)
    assert expected["total_variation"] > float((law - model).abs().sum()) / 2
