"""The batch algorithm's exact law, by enumeration over all lists of candidates."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.sampling import BatchTemperature, PlainSampler, batch_temperature


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def law(candidates, power):
    """Probability of each chunk: C(c, m) over its sum, at the first level m that is not empty."""
    counts = {x: candidates.count(x) for x in candidates}
    for m in range(power, 0, -1):
        weights = {x: math.comb(c, m) for x, c in counts.items()}
        if sum(weights.values()) > 0:
            return {x: w / sum(weights.values()) for x, w in weights.items() if w > 0}
    raise AssertionError


def weights_given_to(candidates, power, monkeypatch):
    """The probabilities from which the choice is drawn, by chunk."""
    seen = []
    draw = torch.multinomial

    def spy(weights, *args, **kwargs):
        seen.append(weights / weights.sum(dim=-1, keepdim=True))
        return draw(weights, *args, **kwargs)

    monkeypatch.setattr(torch, "multinomial", spy)
    batch_temperature(torch.tensor(candidates)[:, None], power, generator=seeded())
    monkeypatch.undo()
    got = {}
    for x, weight in zip(candidates, seen[0][0].tolist(), strict=True):
        got[x] = got.get(x, 0.0) + weight
    return {x: w for x, w in got.items() if w > 0}


def test_example_of_the_paper(monkeypatch):
    got = weights_given_to([7, 7, 7, 9, 9, 1], 2, monkeypatch)
    assert got == pytest.approx({7: 3 / 4, 9: 1 / 4})


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_law_of_all_lists_of_five(power, monkeypatch):
    for candidates in itertools.product(range(3), repeat=5):
        got = weights_given_to(list(candidates), power, monkeypatch)
        assert got == pytest.approx(law(candidates, power), rel=1e-12)


def test_choice_follows_the_weights():
    """40 000 rows of the paper's example; probability 1/2, as unequal counts might give, fails."""
    candidates = torch.tensor([7, 7, 7, 9, 9])[:, None, None].expand(5, 40_000, 1)
    chosen = batch_temperature(candidates, 2, generator=seeded())
    share = (chosen == 7).double().mean()
    error = (3 / 16 / 40_000) ** 0.5
    assert abs(share - 3 / 4) < 4.9 * error
    assert abs(share - 3 / 5) > 4.9 * error  # the law of power 1


def test_expected_law_tends_to_the_power_of_the_distribution():
    """At N = n the answer is exact whenever all agree; enumerated for P = (0.7, 0.3), N = 2."""
    p = [0.7, 0.3]
    total = dict.fromkeys(range(2), 0.0)
    for draw in itertools.product(range(2), repeat=2):
        for x, share in law(draw, 2).items():
            total[x] += p[draw[0]] * p[draw[1]] * share
    # Agreement adds P^2; disagreement, 2 P(0) P(1), is split evenly.
    assert total[0] == pytest.approx(0.49 + 0.21)


@given(st.integers(0, 1000), st.integers(1, 4), st.sampled_from([(), (3,), (2, 3), (0,)]))
def test_rows_are_chosen_from_their_own_candidates(seed, power, batch):
    candidates = torch.randint(3, (6, *batch, 2), generator=seeded(seed))
    chosen = batch_temperature(candidates, power, generator=seeded(seed))
    assert chosen.shape == (*batch, 2)
    rows = candidates.reshape(6, -1, 2)
    for row, chunk in enumerate(chosen.reshape(-1, 2).tolist()):
        own = [tuple(x) for x in rows[:, row].tolist()]
        assert tuple(chunk) in law(own, power)


def test_many_candidates_do_not_overflow():
    candidates = torch.tensor([[1]] * 1500 + [[2]] * 1500 + [[3]])
    chosen = batch_temperature(candidates, 700, generator=seeded())
    assert int(chosen) in (1, 2)


def test_chunks_agree_only_if_all_tokens_do():
    candidates = torch.tensor([[1, 2], [1, 3], [1, 4], [5, 6], [5, 6]])
    for seed in range(20):
        assert batch_temperature(candidates, 2, generator=seeded(seed)).tolist() == [5, 6]


def test_same_seed_same_choice():
    candidates = torch.arange(50)[:, None, None].expand(50, 20, 1)
    choices = [batch_temperature(candidates, 1, generator=seeded(s)) for s in (0, 0, 1)]
    assert torch.equal(choices[0], choices[1]) and not torch.equal(choices[0], choices[2])


def test_samplers_draw_what_they_need():
    asked = []

    def draw(n):
        asked.append(n)
        return torch.arange(n)[:, None, None].expand(n, 4, 2)

    assert PlainSampler()(draw).tolist() == [[0, 0]] * 4
    assert BatchTemperature(power=2, candidates=9)(draw, seeded()).shape == (4, 2)
    assert asked == [1, 9]


@pytest.mark.parametrize("arguments", [{"power": 0}, {"power": 3, "candidates": 2}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match="power must be at least 1 and candidates at least power"):
        BatchTemperature(**arguments)


def test_no_power_or_candidate():
    with pytest.raises(ValueError, match="got 0 and 3"):
        batch_temperature(torch.zeros(3, 1, dtype=torch.long), 0)
    with pytest.raises(ValueError, match="got 2 and 0"):
        batch_temperature(torch.zeros(0, 1, dtype=torch.long), 2)
