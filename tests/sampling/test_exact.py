"""The exact algorithm's law, by enumeration of its random decisions; and that it is followed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import tempered
from seeding import seeded

from calmkit.sampling import (
    BatchTemperature,
    DrawBudgetError,
    ExactTemperature,
    MostFrequent,
    PlainSampler,
    exact_temperature,
    most_frequent,
)
from calmkit.sampling.exact import ExactState
from calmkit.sampling.weights import exponent_of

TEMPERATURES = [1 / 3, 0.4, 0.5, 0.7, 0.9, 1.0]


def key(state, row):
    return int(state.held[row]), int(state.run[row]), int(state.misses[row])


def enumerate_law(p, temperature):
    """Probability of each result and the expected number of draws of one attempt to a restart.

    All decisions are tried on the real state machine: every chunk as the next draw, and numbers
    just below and just above the probability a / i of a restart. A path has the product of its
    probabilities; it ends in a result or in a restart. All paths go on together, a row each.
    """
    n, a = exponent_of(temperature)
    done, draws, restarted = [0.0] * len(p), 0.0, 0.0
    states, chances = ExactState.start(torch.full((1, 1), -1)), [1.0]
    while chances:
        draws += sum(chances)
        tried = [
            (row, x, uniform, chance * share * part)
            for row, chance in enumerate(chances)
            for limit in [a / int(states.misses[row])]
            for x, share in enumerate(p)
            for uniform, part in ((limit * (1 - 1e-9), limit), (limit + 1e-9, 1 - limit))
            if chance * share * part >= 1e-17
        ]
        if not tried:
            break
        rows, drawn, uniforms, weights = zip(*tried, strict=True)
        new = states.select(torch.tensor(rows)).after(
            torch.tensor(drawn)[:, None], torch.tensor(uniforms), n, a
        )
        left = {}  # equal states are one path
        for row, weight in enumerate(weights):
            if new.done[row]:
                done[int(new.held[row])] += weight
            elif int(new.run[row]) == 0:
                restarted += weight
            else:
                first, there = left.get(key(new, row), (row, 0.0))
                left[key(new, row)] = first, there + weight
        states = new.select(torch.tensor([row for row, _ in left.values()], dtype=torch.long))
        chances = [chance for _, chance in left.values()]
    ends = sum(done)
    assert ends + restarted == pytest.approx(1, abs=1e-12)
    # Restarts are independent of what came before.
    return [x / ends for x in done], draws / ends


def check_law(p, temperature):
    law, draws = enumerate_law(p, temperature)
    assert law == pytest.approx(tempered(p, temperature), abs=1e-12)
    n, a = exponent_of(temperature)
    z = sum(x ** (1 / temperature) for x in p)
    first = 1 + sum(sum(x**k for x in p) for k in range(1, n))
    second = sum(x ** (1 / temperature - 1) for x in p) if a > 0 else 0.0
    assert draws == pytest.approx((first + second) / z, rel=1e-9)
    # The paper's theorem counts n draws of every attempt; the third is not always made.
    theorem = (n + second) / z
    assert draws == pytest.approx(theorem, rel=1e-9) if n < 3 else draws < theorem + 1e-9


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("p", [[0.5, 0.3, 0.2], [0.9, 0.1], [1.0], [0.25] * 4])
def test_law_and_number_of_draws(p, temperature):
    check_law(p, temperature)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([*TEMPERATURES, 0.45, 0.95]),
)
def test_law_of_random_distributions(parts, temperature):
    check_law([x / sum(parts) for x in parts], temperature)


P = torch.tensor([0.5, 0.3, 0.15, 0.05])
ROWS = 20_000


class Box:
    """Draws from P, and counts the draws of each row; its rows can be selected."""

    def __init__(self, generator, rows=ROWS, counts=None, numbers=None):
        self.generator = generator
        self.numbers = torch.arange(rows) if numbers is None else numbers
        self.counts = torch.zeros(rows, dtype=torch.long) if counts is None else counts

    def __call__(self, n):
        rows = len(self.numbers)
        self.counts[self.numbers] += n
        drawn = torch.multinomial(P, n * rows, replacement=True, generator=self.generator)
        return drawn.view(n, rows, 1)

    def select(self, rows):
        return Box(self.generator, counts=self.counts, numbers=self.numbers[rows])


def chi_square(tokens, temperature):
    want = torch.tensor(tempered(P.tolist(), temperature)) * len(tokens)
    got = torch.bincount(tokens.flatten(), minlength=4)
    return float(((got - want).square() / want).sum())


# Quantile 1 - 1e-6 of chi-square with 3 degrees of freedom.
LIMIT = 30.7


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_all_rows_together_follow_the_law(temperature, monkeypatch):
    """And where no block is longer than it must be, the draws are those that the law needs."""
    monkeypatch.setattr("calmkit.sampling.exact._LARGEST_BLOCK", 1)
    got = exact_temperature(Box(seeded()), temperature, generator=seeded(1))
    assert chi_square(got.tokens, temperature) < LIMIT
    assert got.settled.all()
    n, a = exponent_of(temperature)
    z = (P ** (1 / temperature)).sum()
    expected = (1 + sum((P**k).sum() for k in range(1, n))) / z
    if a > 0:
        expected += (P ** (1 / temperature - 1)).sum() / z
    error = got.draws.double().std() / ROWS**0.5
    assert abs(got.draws.double().mean() - expected) <= 5 * error


@pytest.mark.parametrize("temperature", [0.4, 0.7])
def test_wrong_algorithms_are_rejected(temperature, monkeypatch):
    """Two that are public: one goes on after a miss without a restart, one lowers P itself."""
    monkeypatch.setattr(
        ExactState,
        "after",
        lambda state, x, u, n, a, after=ExactState.after: after(
            state, x, torch.ones_like(u), n, a
        ),
    )
    got = exact_temperature(Box(seeded()), temperature, generator=seeded(1))
    assert chi_square(got.tokens, temperature) > LIMIT
    monkeypatch.undo()
    # A softmax of a scalar energy per draw, here its own index, over a set of draws.
    candidates = torch.multinomial(P, 8 * ROWS, replacement=True, generator=seeded()).view(8, -1)
    weights = (-candidates.double() / temperature).softmax(dim=0)
    wrong = candidates.gather(0, torch.multinomial(weights.T, 1, generator=seeded()).T)
    assert chi_square(wrong, temperature) > LIMIT


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draws_are_those_of_each_row(temperature):
    """All that the box drew for a row, also what was left of its last block."""
    box = Box(seeded(), rows=500)
    got = exact_temperature(box, temperature, generator=seeded(1))
    assert torch.equal(got.draws, box.counts)
    assert temperature == 1 or box.counts.min() < box.counts.max()


def test_draws_of_a_box_without_selection_are_the_same_for_all_rows():
    box = Box(seeded(), rows=50)
    got = exact_temperature(lambda n: box(n), 0.4, generator=seeded(1))
    assert torch.equal(got.draws, box.counts) and len(got.draws.unique()) == 1


def test_a_box_without_selection_gives_the_same_law():
    box = Box(seeded())
    got = exact_temperature(lambda n: box(n), 0.4, generator=seeded(1))
    assert chi_square(got.tokens, 0.4) < LIMIT


def test_batch_axes_and_chunks_of_several_tokens():
    tokens = torch.tensor([[1, 2], [1, 3]])

    def draw(n):
        pick = torch.randint(2, (n, 2, 3), generator=generator)
        return tokens[pick]

    generator = seeded()
    got = exact_temperature(draw, 0.5, generator=seeded(1))
    assert got.tokens.shape == (2, 3, 2) and got.draws.shape == got.settled.shape == (2, 3)
    assert (got.tokens[..., 0] == 1).all() and set(got.tokens[..., 1].flatten().tolist()) <= {2, 3}


def never_equal(n):
    """Row 1 never draws the same twice; the others always do."""
    tokens = torch.zeros(n, 3, 1, dtype=torch.long)
    tokens[:, 1, 0] = torch.arange(n)
    return tokens


def test_a_row_beyond_its_budget_is_named():
    with pytest.raises(
        DrawBudgetError, match=r"max_draws = 50 .* rows \[1\].* fallback"
    ) as caught:
        exact_temperature(never_equal, 0.5, generator=seeded(), max_draws=50)
    assert caught.value.rows == [1]


def test_a_row_beyond_its_budget_may_fall_back():
    sampler = ExactTemperature(0.5, max_draws=50, fallback=BatchTemperature(0.5, 8))
    got = sampler(never_equal, seeded())
    assert got.settled.tolist() == [True, False, True]
    assert got.draws.tolist() == [58] * 3  # such a box draws for all rows each time
    assert got.tokens[[0, 2]].flatten().tolist() == [0, 0]


def test_the_fallback_draws_for_late_rows_alone():
    class Late(Box):
        def __call__(self, n):
            self.counts[self.numbers] += n
            return (
                torch.arange(n)[:, None, None].expand(-1, len(self.numbers), 1)
                + self.numbers[:, None] * 0
            )

        def select(self, rows):
            return Late(None, counts=self.counts, numbers=self.numbers[rows])

    box = Late(None, rows=4)
    got = exact_temperature(
        box, 0.5, max_draws=6, fallback=BatchTemperature(0.5, 5), generator=seeded()
    )
    assert not got.settled.any()
    assert box.counts.tolist() == [11] * 4 == got.draws.tolist()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ExactTemperature(0.5, 2.5), r"max_draws must be a whole number; got 2\.5"),
        (lambda: ExactTemperature(0.5, True), "max_draws must be a whole number; got True"),
        (lambda: ExactTemperature(0.5, math.inf), "max_draws must be a whole number; got inf"),
        (lambda: ExactTemperature(math.nan), r"temperature must be in \(0, 1\].* got nan"),
        (lambda: ExactTemperature(True), r"temperature must be in \(0, 1\].* got True"),
        (lambda: ExactTemperature(5e-324), "max_draws must be at least 1 / temperature"),
        (lambda: ExactTemperature(0.0), r"temperature must be in \(0, 1\]"),
        (lambda: ExactTemperature(0.2, max_draws=4), "max_draws must be at least .* 5; got 4"),
        (lambda: exact_temperature(never_equal, 2.0), r"temperature must be in \(0, 1\]"),
        (
            lambda: exact_temperature(never_equal, 0.2, max_draws=4),
            "max_draws must be at least .* 5; got 4",
        ),
        (
            lambda: exact_temperature(lambda n: torch.zeros(n, 2), 0.5),
            r"draw\(2\) must return integers",
        ),
    ],
)
def test_bad_arguments_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_most_frequent():
    candidates = torch.tensor([[3, 4], [1, 2], [3, 4], [5, 6], [1, 2], [3, 4]])
    assert most_frequent(candidates, generator=seeded()).tolist() == [3, 4]
    ties = torch.tensor([[0], [0], [1], [1], [2]])[:, None].expand(-1, 2000, -1)
    chosen = most_frequent(ties, generator=seeded())
    assert set(chosen.flatten().tolist()) == {0, 1}
    assert abs(chosen.double().mean() - 0.5) < 5 * 0.5 / 2000**0.5
    got = MostFrequent(6)(lambda n: candidates[:n])
    assert got.tokens.tolist() == [3, 4] and int(got.draws) == 6 and bool(got.settled)


def test_no_candidates_are_refused():
    with pytest.raises(ValueError, match="candidates must be at least 1; got 0"):
        MostFrequent(0)
    for wrong in (1.5, True, math.inf, "8"):
        with pytest.raises(ValueError, match="candidates must be a whole number; got"):
            MostFrequent(wrong)
    with pytest.raises(ValueError, match="at least one draw"):
        most_frequent(torch.zeros(0, 2, dtype=torch.long))


def test_a_fallback_that_chooses_other_chunks_is_named():
    def short(draw, generator=None):
        return PlainSampler()(lambda n: draw(n)[:, :2])

    with pytest.raises(ValueError, match=r"fallback must choose .* \(3, 1\).* got \(2, 1\)"):
        exact_temperature(never_equal, 0.5, max_draws=4, fallback=short, generator=seeded())


@pytest.mark.gpu
def test_on_a_gpu_in_few_calls():
    """Each call costs the same there, so that blocks are large from the second on."""
    box, asked = Box(seeded()), []

    def draw(n):
        asked.append(n)
        return box(n).cuda()

    got = exact_temperature(draw, 0.5, generator=torch.Generator("cuda").manual_seed(1))
    assert got.tokens.device == got.draws.device == got.settled.device
    assert got.tokens.device.type == "cuda" and got.settled.all()
    assert chi_square(got.tokens.cpu(), 0.5) < LIMIT
    assert len(asked) < 12
