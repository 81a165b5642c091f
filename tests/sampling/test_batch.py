"""The batch algorithm's exact law, by enumeration over all lists of candidates."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import batch_law, expected_batch_law, tempered
from seeding import seeded

from calmkit.sampling import BatchTemperature, PlainSampler, batch_temperature
from calmkit.sampling import batch as module
from calmkit.sampling.weights import choose, exponent_of

TEMPERATURES = [1.0, 0.9, 0.7, 0.5, 0.4, 1 / 3, 0.3, 0.25]


class Weights:
    """Catches the weights from which the choice is drawn."""

    def __init__(self, monkeypatch):
        real = module.choose
        monkeypatch.setattr(module, "choose", lambda w, g=None: self.catch(w, real, g))

    def catch(self, weights, real, generator):
        self.last = weights / weights.sum(dim=-1, keepdim=True)
        return real(weights, generator)

    def by_chunk(self, candidates):
        """Of the first row, by its chunks of one token."""
        got = {}
        for x, weight in zip(candidates, self.last[0].tolist(), strict=False):
            got[x] = got.get(x, 0.0) + weight
        return {x: w for x, w in got.items() if w > 0}


@pytest.fixture
def weights(monkeypatch):
    return Weights(monkeypatch)


def chosen_by(candidates, temperature, weights):
    batch_temperature(torch.tensor(candidates)[:, None], temperature, generator=seeded())
    return weights.by_chunk(candidates)


def test_example_of_the_paper(weights):
    got = chosen_by([7, 7, 7, 9, 9, 1], 0.5, weights)
    assert got == pytest.approx({7: 3 / 4, 9: 1 / 4})


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_law_of_all_lists_of_six(temperature, weights):
    """Also for fractional 1/T: the exact algorithm on candidates in random order, each once."""
    for candidates in itertools.combinations_with_replacement(range(3), 6):
        got = chosen_by(list(candidates), temperature, weights)
        assert got == pytest.approx(batch_law(candidates, temperature), rel=1e-10)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=12),
    st.floats(0.12, 1.0, exclude_min=True),
)
def test_law_at_any_temperature(candidates, temperature):
    with pytest.MonkeyPatch.context() as monkeypatch:
        got = chosen_by(candidates, temperature, Weights(monkeypatch))
    assert got == pytest.approx(batch_law(candidates, temperature), rel=1e-8)


def test_the_rule_between_two_whole_numbers_joins_theirs(weights):
    candidates = [1] * 5 + [2] * 3 + [3] * 2 + [4]
    for whole in (2, 3):
        at = chosen_by(candidates, 1 / whole, weights)
        for near in (1 / (whole - 1e-6), 1 / (whole + 1e-6)):
            close = chosen_by(candidates, near, weights)
            for x in set(at) | set(close):
                assert close.get(x, 0.0) == pytest.approx(at.get(x, 0.0), abs=1e-5)


def test_the_law_tends_to_the_tempered_one():
    """The error of the expected law falls about as 1 / N."""
    p = [0.6, 0.3, 0.1]
    for temperature in (0.5, 0.4):
        errors = []
        for number in (8, 16, 32):
            law = expected_batch_law(p, number, temperature)
            want = tempered(p, temperature)
            errors.append(sum(abs(law[x] - want[x]) for x in range(3)))
        assert errors[1] < 0.65 * errors[0] and errors[2] < 0.65 * errors[1]


def test_choice_follows_the_weights():
    """40 000 rows of the paper's example; the law of other temperatures fails."""
    candidates = torch.tensor([7, 7, 7, 9, 9])[:, None, None].expand(5, 40_000, 1)
    chosen = batch_temperature(candidates, 0.5, generator=seeded())
    share = (chosen == 7).double().mean()
    error = (3 / 16 / 40_000) ** 0.5
    assert abs(share - 3 / 4) < 4.9 * error
    assert abs(share - 3 / 5) > 4.9 * error  # temperature 1


@given(st.integers(0, 1000), st.sampled_from(TEMPERATURES), st.sampled_from([(), (3,), (2, 3)]))
def test_rows_are_chosen_from_their_own_candidates(seed, temperature, batch):
    candidates = torch.randint(3, (6, *batch, 2), generator=seeded(seed))
    chosen = batch_temperature(candidates, temperature, generator=seeded(seed))
    assert chosen.shape == (*batch, 2)
    rows = candidates.reshape(6, -1, 2)
    for row, chunk in enumerate(chosen.reshape(-1, 2).tolist()):
        own = [tuple(x) for x in rows[:, row].tolist()]
        assert tuple(chunk) in batch_law(own, temperature)


def test_an_empty_batch():
    assert batch_temperature(torch.zeros(4, 0, 2, dtype=torch.long), 0.5).shape == (0, 2)


def test_many_candidates_do_not_overflow(weights):
    candidates = [1] * 1500 + [2] * 1490 + [3]
    got = chosen_by(candidates, 1 / 700, weights)
    # C(1500, 700) / C(1490, 700) is about (1500 / 800)^10 or so.
    ratio = 1.0
    for c in range(1490, 1500):
        ratio *= (c + 1) / (c + 1 - 700)
    assert got == pytest.approx({1: ratio / (1 + ratio), 2: 1 / (1 + ratio)}, rel=1e-9)


def test_chunks_agree_only_if_all_tokens_do():
    candidates = torch.tensor([[1, 2], [1, 3], [1, 4], [5, 6], [5, 6]])
    for seed in range(20):
        assert batch_temperature(candidates, 0.5, generator=seeded(seed)).tolist() == [5, 6]


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1.0, {1, 2, 3, 4}), (0.91, {1, 2, 3, 4}), (0.9, {1, 2, 3}), (0.5, {1}), (0.51, {1, 2, 3})],
)
def test_nucleus_keeps_the_most_frequent(top_p, kept, weights):
    """Shares 0.5, 0.2, 0.2, 0.1: what is as frequent as the last of them stays too."""
    candidates = [1] * 5 + [2] * 2 + [3] * 2 + [4]
    batch_temperature(torch.tensor(candidates)[:, None], 1.0, top_p=top_p, generator=seeded())
    got = weights.by_chunk(candidates)
    total = sum(candidates.count(x) for x in kept)
    assert got == pytest.approx({x: candidates.count(x) / total for x in kept})


class Box:
    """Gives prepared candidates in order, and counts how many were asked for."""

    def __init__(self, candidates):
        self.left, self.asked = candidates, []

    def __call__(self, n):
        self.asked.append(n)
        now, self.left = self.left[:n], self.left[n:]
        return now


@pytest.mark.parametrize("temperature", TEMPERATURES[1:])
def test_the_sampler_chooses_as_the_function(temperature):
    """So few candidates are counted."""
    candidates = torch.randint(4, (9, 200, 2), generator=seeded())
    got = BatchTemperature(temperature, 9)(Box(candidates), seeded(1))
    want = batch_temperature(candidates, temperature, generator=seeded(1))
    assert torch.equal(got.tokens, want)
    assert (got.draws == 9).all()
    n = int(1 / temperature + 1e-9)
    equal = (candidates[:, None] == candidates).all(dim=-1).sum(dim=1).amax(dim=0)
    assert torch.equal(got.settled, equal >= n)


def test_candidates_that_a_device_draws_at_once_are_counted(monkeypatch):
    """As on a GPU: two calls, and the choice of the function."""
    monkeypatch.setattr("calmkit.sampling.batch.at_once", lambda device: 10**6)
    candidates = torch.randint(9, (100, 50, 2), generator=seeded())
    box = Box(candidates)
    got = BatchTemperature(0.5, 100)(box, seeded(1))
    assert torch.equal(got.tokens, batch_temperature(candidates, 0.5, generator=seeded(1)))
    assert len(box.asked) == 2 and sum(box.asked) == 100


@pytest.mark.parametrize("top_p", [0.4, 0.7])
@pytest.mark.parametrize("temperature", [0.5, 0.4, 1 / 3])
def test_the_sampler_keeps_the_most_frequent(temperature, top_p):
    candidates = torch.randint(12, (11, 300, 1), generator=seeded())
    got = BatchTemperature(temperature, 11, top_p=top_p)(Box(candidates), seeded(1))
    want = batch_temperature(candidates, temperature, top_p=top_p, generator=seeded(1))
    equal = (candidates[:, None] == candidates).all(dim=-1).sum(dim=1).amax(dim=0)
    settled = equal >= int(1 / temperature + 1e-9)
    assert torch.equal(got.settled, settled)
    assert torch.equal(got.tokens[settled], want[settled]) and settled.sum() > 100


def test_temperature_1_draws_once():
    box = Box(torch.arange(4)[:, None, None].expand(4, 3, 2))
    got = BatchTemperature(1.0, 4)(box)
    assert got.tokens.tolist() == [[0, 0]] * 3 and box.asked == [1]


def test_plain_sampler():
    box = Box(torch.arange(4)[:, None, None].expand(4, 3, 2))
    got = PlainSampler()(box)
    assert got.tokens.tolist() == [[0, 0]] * 3
    assert got.draws.tolist() == [1, 1, 1] and got.settled.all()
    assert box.asked == [1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"temperature": 0.0}, r"temperature must be in \(0, 1\].*got 0.0"),
        ({"temperature": 1.5}, r"temperature must be in \(0, 1\].*got 1.5"),
        ({"temperature": 0.25, "candidates": 3}, "candidates must be at least 1 / .* 4.* got 3"),
        ({"candidates": 0}, "candidates must be at least"),
        ({"candidates": -3}, "candidates must be at least"),
        ({"candidates": 64.0}, "candidates must be a whole number; got 64.0"),
        ({"candidates": True}, "candidates must be a whole number; got True"),
        ({"temperature": math.nan}, r"temperature must be in \(0, 1\].*got nan"),
        ({"temperature": True}, r"temperature must be in \(0, 1\].*got True"),
        ({"temperature": 5e-324}, "candidates must be at least 1 / temperature"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]; got 0.0"),
        ({"top_p": math.nan}, r"top_p must be in \(0, 1\]; got nan"),
        ({"top_p": math.inf}, r"top_p must be in \(0, 1\]; got inf"),
        ({"top_p": True}, r"top_p must be in \(0, 1\]; got True"),
    ],
)
def test_bad_settings_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        BatchTemperature(**arguments)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="at least one draw; got none"):
        batch_temperature(torch.zeros(0, 1, dtype=torch.long), 0.5)
    for temperature in (-0.5, 0.0, 1.1):
        with pytest.raises(ValueError, match=rf"temperature .* got {temperature}"):
            batch_temperature(torch.zeros(2, 1, dtype=torch.long), temperature)
    for top_p in (-1.0, math.nan, 1.5):
        with pytest.raises(ValueError, match="top_p must be in"):
            batch_temperature(torch.zeros(2, 1, dtype=torch.long), 1.0, top_p=top_p)


def test_a_temperature_next_to_zero_takes_the_most_frequent():
    candidates = torch.tensor([5, 6, 6])[:, None]
    assert batch_temperature(candidates, 5e-324).tolist() == [6]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda n: torch.zeros(n + 1, 2, 3, dtype=torch.long),
        lambda n: torch.zeros(n, dtype=torch.long),
        lambda n: torch.zeros(n, 2, 3),
        lambda n: torch.zeros(n, 2, 3, dtype=torch.bool),
        lambda n: torch.zeros(n, 2, 3, dtype=torch.complex64),
    ],
)
def test_draws_of_another_shape_are_named(wrong):
    for sampler in (PlainSampler(), BatchTemperature(0.5, 4)):
        with pytest.raises(ValueError, match=r"draw\(\d\) must return integers of shape"):
            sampler(wrong, seeded())


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_what_has_no_weight_is_never_chosen(uniform, monkeypatch):
    """Not even by the smallest and the largest number that a generator gives."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, uniform))
    weights = torch.tensor([[0.0, 0.3, 0.0, 0.0], [0.0, 0.1, 0.2, 0.0], [1e-300, 0.0, 0.0, 0.0]])
    chosen = choose(weights)
    assert (weights[torch.arange(3), chosen] > 0).all()


def test_whole_numbers_are_whole_in_spite_of_rounding():
    assert any(1 / (1 / n) != n for n in range(1, 1000))
    for n in range(1, 1000):
        assert exponent_of(1 / n) == (n, 0.0)
    assert exponent_of(0.4) == (2, pytest.approx(0.5))
