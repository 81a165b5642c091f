"""Choosing by subsets has the law of counting all candidates: enumerated, and followed."""

import itertools
import math

import pytest
import torch
from laws import batch_law
from seeding import seeded

from calmkit.sampling import BatchTemperature, batch_temperature
from calmkit.sampling import batch as module
from calmkit.sampling.candidates import Candidates
from calmkit.sampling.subsets import (
    agreeing,
    by_appearance,
    draw_subsets,
    first_agreeing,
    numbers_of_subsets,
)


class Prepared:
    """Gives prepared candidates (N, rows, chunk) in order; notes what is drawn and decoded."""

    def __init__(self, tokens, rows=None, notes=None):
        self.tokens = tokens
        self.rows = torch.arange(tokens.shape[1]) if rows is None else rows
        nothing = {"drawn": torch.zeros_like(self.rows), "decoded": torch.zeros_like(tokens)}
        self.notes = nothing if notes is None else notes

    def __call__(self, n):
        raise AssertionError("all tokens were asked for")

    def undecoded(self, n):
        numbers = self.notes["drawn"][self.rows] + torch.arange(n)[:, None]
        self.notes["drawn"][self.rows] += n
        rows = self.rows.expand_as(numbers)
        return PreparedBlock(self, numbers.flatten(), rows.flatten(), numbers.shape)

    def select(self, rows):
        return Prepared(self.tokens, self.rows[rows], self.notes)


class PreparedBlock:
    def __init__(self, box, numbers, rows, batch):
        self.box, self.numbers, self.rows = box, numbers, rows
        self.shape, self.device = (*batch, box.tokens.shape[-1]), numbers.device

    def tokens_at(self, places, chosen):
        where = (self.numbers[chosen, None], self.rows[chosen, None], torch.tensor(places))
        self.box.notes["decoded"].index_put_(where, torch.tensor(1), accumulate=True)
        return self.box.tokens[where]

    def joined(self, others):
        numbers = torch.cat([self.numbers, others.numbers])
        rows = torch.cat([self.rows, others.rows])
        return PreparedBlock(self.box, numbers, rows, numbers.shape)


def enumerated(p, number, size, subsets):
    """Each list of candidates with each list of tuples of them, a row each; and its chance."""
    candidates = torch.tensor(list(itertools.product(range(len(p)), repeat=number)))
    one = list(itertools.product(range(number), repeat=size))
    named = torch.tensor(list(itertools.product(one, repeat=subsets)))
    chances = torch.tensor(p, dtype=torch.float64)[candidates].prod(dim=1) / len(named)
    rows, times = len(candidates), len(named)
    return (
        candidates.repeat_interleave(times, dim=0).T[..., None],
        named.repeat(rows, 1, 1),
        chances.repeat_interleave(times),
    )


def law_of_sampler(p, number, size, first, most, monkeypatch, change=lambda subsets: subsets):
    """Probability of each chunk, settled and not, over all candidates and two tuples at most."""
    candidates, named, chances = enumerated(p, number, size, min(most, 2))
    subsets, caught = change(by_appearance(named, number)), {}

    def choose(weights, generator):
        caught["weights"] = weights / weights.sum(dim=-1, keepdim=True)
        return weights.argmax(dim=-1)

    def found(*arguments):
        chosen, agreed = first_agreeing(*arguments)
        caught["agreed"] = agreed.clone()
        return chosen, agreed

    monkeypatch.setattr(module, "numbers_of_subsets", lambda *_: (first, most))
    monkeypatch.setattr(module, "draw_subsets", lambda *_: subsets)
    monkeypatch.setattr(module, "first_agreeing", found)
    monkeypatch.setattr(module, "choose", choose)
    box = Prepared(candidates)
    got = BatchTemperature(1 / size, number)(box)
    monkeypatch.undo()
    by_subset = caught["agreed"]
    law = torch.zeros(2, len(p), dtype=torch.float64)
    law[1].scatter_add_(0, got.tokens[by_subset, 0], chances[by_subset])
    left = (~by_subset).nonzero().flatten()
    if len(left):
        shares = caught["weights"] * chances[left, None]
        for row, share in zip(left.tolist(), shares, strict=True):
            law[int(got.settled[row])].scatter_add_(0, candidates[:, row, 0], share)
    assert (got.draws == box.notes["drawn"]).all()
    return law, float(chances[by_subset].sum())


def law_of_counting(p, number, size):
    law = torch.zeros(2, len(p), dtype=torch.float64)
    for candidates in itertools.product(range(len(p)), repeat=number):
        settled = max(map(candidates.count, candidates)) >= size
        chance = math.prod(p[x] for x in candidates)
        for x, share in batch_law(list(candidates), 1 / size).items():
            law[int(settled), x] += chance * share
    return law


CASES = [
    ([0.6, 0.3, 0.1], 3, 2, 1, 2),
    ([0.8, 0.2], 5, 2, 1, 2),
    ([0.5, 0.3, 0.2], 5, 2, 1, 1),
    ([0.4, 0.3, 0.2, 0.1], 3, 2, 2, 2),
    ([0.7, 0.3], 4, 3, 1, 1),
    ([0.5, 0.3, 0.2], 4, 3, 1, 1),
]


@pytest.mark.parametrize(("p", "number", "size", "first", "most"), CASES)
def test_law_is_that_of_counting_all(p, number, size, first, most, monkeypatch):
    """Enumerated; in many of these rows the subsets run out, and counting decides."""
    law, by_subset = law_of_sampler(p, number, size, first, most, monkeypatch)
    torch.testing.assert_close(law, law_of_counting(p, number, size), atol=1e-12, rtol=0)
    assert 0.02 < by_subset < float(law[1].sum()) - 0.02


def in_order_of_drawing(subsets):
    """Wrong: what the first 2, 3, 4, ... candidates agree on comes first."""
    pairs = [(i, k) for k in range(5) for i in range(k)]
    return torch.tensor(pairs).expand(len(subsets), -1, -1)


def chained(subsets):
    """Wrong: each subset goes on with the last candidate of the one before."""
    subsets = subsets.clone()
    subsets[:, 1:, 0] = subsets[:, :-1, -1]
    return subsets


def with_a_candidate_twice(subsets):
    """Wrong: what names a candidate twice agrees with itself."""
    twice = subsets[..., 0] == subsets[..., 1]
    return torch.where(twice[..., None], torch.tensor([0, 1]), subsets)


@pytest.mark.parametrize(
    ("wrong", "number"), [(in_order_of_drawing, 10), (chained, 2), (with_a_candidate_twice, 2)]
)
def test_wrong_subsets_have_another_law(wrong, number, monkeypatch):
    law, _ = law_of_sampler([0.8, 0.2], 5, 2, number, number, monkeypatch, wrong)
    assert (law - law_of_counting([0.8, 0.2], 5, 2)).abs().max() > 1e-4


P = torch.tensor([0.12, 0.08, 0.04, 0.03] + [0.73 / 200] * 200)
ROWS = 20_000


class FromP:
    """A black box of independent draws from P, also for some of its rows alone."""

    def __init__(self, generator, rows=ROWS):
        self.generator, self.rows = generator, rows

    def __call__(self, n):
        drawn = torch.multinomial(P, n * self.rows, replacement=True, generator=self.generator)
        return drawn.view(n, self.rows, 1)

    def select(self, rows):
        return FromP(self.generator, len(rows))


def shares_of(tokens):
    """How often the likeliest chunks, and all others."""
    return torch.bincount(tokens.flatten().clamp_max(4), minlength=5).double()


def chi_square(first, second):
    """Of two samples of the same size, with 4 degrees of freedom."""
    a, b = shares_of(first), shares_of(second)
    return float(((a - b).square() / (a + b)).sum())


# Quantile 1 - 1e-6 of chi-square with 4 degrees of freedom.
LIMIT = 33.4


@pytest.fixture(scope="module")
def counted():
    return batch_temperature(FromP(seeded(1))(64), 0.5, generator=seeded(2))


def test_rows_follow_the_law_of_counting(counted):
    """Pairs agree with probability 0.026: some rows are done in each round, some never."""
    got = BatchTemperature(0.5, 64)(FromP(seeded()), seeded(3))
    assert chi_square(got.tokens, counted) < LIMIT
    assert len(got.draws.unique()) > 3 and got.settled.double().mean() > 0.99


def test_wrong_samplers_are_rejected(counted, monkeypatch):
    draw = FromP(seeded())
    few = BatchTemperature(0.5, 16)(draw, seeded(3))
    assert chi_square(few.tokens, counted) > LIMIT
    pairs = torch.tensor([(i, k) for k in range(64) for i in range(k)])[:64]
    monkeypatch.setattr(
        module, "draw_subsets", lambda rows, *_: pairs.expand(rows, -1, -1).contiguous()
    )
    in_order = BatchTemperature(0.5, 64)(draw, seeded(3))
    assert chi_square(in_order.tokens, counted) > LIMIT


def literally(candidates, subsets):
    """The chunk of the first subset that agrees, of one row's lists; None if there is none."""
    for subset in subsets:
        chunks = [candidates[i] for i in subset]
        if len(set(subset)) == len(subset) and all(x == chunks[0] for x in chunks):
            return chunks[0]
    return None


@pytest.fixture
def tested(monkeypatch):
    """Notes how many subsets of each row were tested."""
    counts = torch.zeros(40, dtype=torch.long)

    def noting(candidates, rows, subsets):
        counts[rows] += subsets.shape[1]
        return agreeing(candidates, rows, subsets)

    monkeypatch.setattr("calmkit.sampling.subsets.agreeing", noting)
    return counts


@pytest.mark.parametrize(("temperature", "number", "vocab"), [(0.5, 64, 4), (1 / 3, 60, 2)])
def test_the_first_subset_that_agrees_is_chosen(temperature, number, vocab, tested, monkeypatch):
    """And what is drawn and decoded for it is no more than has to be."""
    monkeypatch.setattr("calmkit.sampling.candidates.at_once", lambda device: 0)
    size, rows = round(1 / temperature), 40
    candidates = torch.randint(vocab, (number, rows, 3), generator=seeded(5))
    box = Prepared(candidates)
    subsets = draw_subsets(rows, 2 * number // size, size, number, seeded(7))
    got = BatchTemperature(temperature, number)(box, seeded(7))
    by_subset = 0
    for row in range(rows):
        chunks = [tuple(x) for x in candidates[:, row].tolist()]
        want = literally(chunks, subsets[row].tolist())
        named = subsets[row, : tested[row]]
        assert want == literally(chunks, named.tolist())
        if want is None:
            assert got.draws[row] == number and len(named) == subsets.shape[1]
            continue
        by_subset += 1
        assert tuple(got.tokens[row].tolist()) == want and got.settled[row]
        assert named.max() < got.draws[row]
        needed = torch.zeros(number, 3, dtype=torch.long)
        for subset in named.tolist():
            for place in range(3):
                if len({chunks[i][place + 1 :] for i in subset}) == 1 and len(set(subset)) == size:
                    needed[subset, place] = 1
        assert torch.equal(box.notes["decoded"][:, row], needed)
    assert by_subset > 10 and len(tested.unique()) > 2
    assert (box.notes["drawn"] == got.draws).all()
    assert box.notes["decoded"].max() == 1


def test_rows_that_never_agree_are_not_settled():
    candidates = torch.arange(64)[:, None, None].expand(64, 3, 2).clone()
    candidates[:, 1] = 5
    candidates[-2:, 2] = 7  # a pair that is likely found by counting alone
    got = BatchTemperature(0.5, 64)(Prepared(candidates), seeded())
    assert got.settled.tolist() == [False, True, True]
    assert got.tokens[1:].tolist() == [[5, 5], [7, 7]]
    # What agrees at once has drawn what the first round names: three rows test 11 pairs each.
    assert got.draws[0] == got.draws[2] == 64 and 16 <= got.draws[1] <= 22


def test_subsets_are_independent_and_numbered_by_appearance():
    named = torch.tensor([[[5, 2], [2, 0], [7, 7], [5, 1]]])
    want = [[[0, 1], [1, 2], [3, 3], [0, 4]]]
    assert by_appearance(named, 8).tolist() == want
    subsets = draw_subsets(2000, 5, 2, 4, seeded())
    assert (subsets[:, 0, 0] == 0).all()
    # The second of the first pair is the same one with probability 1/4.
    assert abs((subsets[:, 0, 1] == 0).double().mean() - 1 / 4) < 5 * (3 / 16 / 2000) ** 0.5


@pytest.mark.parametrize(
    ("number", "size", "numbers"),
    [(200, 2, (8, 200)), (48, 3, (8, 32)), (31, 2, (0, 0)), (64, 9, (0, 0))],
)
def test_how_many_subsets_are_tested(number, size, numbers):
    assert numbers_of_subsets(number, size) == numbers


@pytest.mark.parametrize(
    ("rows", "ends"),
    [(1, [32, 64, 96, 144, 200]), (8, [8, 12, 18, 27, 40, 60, 90, 135, 200])],
)
def test_rounds_grow_by_half_and_are_larger_for_few_rows(rows, ends, monkeypatch):
    tested = []

    def none(candidates, rows, subsets):
        tested.append(subsets.shape[1])
        return torch.zeros(subsets.shape[:2], dtype=torch.bool)

    monkeypatch.setattr("calmkit.sampling.subsets.agreeing", none)
    candidates = torch.zeros(200, rows, 1, dtype=torch.long)
    first_agreeing(
        Candidates(Prepared(candidates), 200, first=16),
        draw_subsets(rows, 200, 2, 200, seeded()),
        8,
    )
    assert list(itertools.accumulate(tested)) == ends


def test_subsets_of_candidates_that_are_there():
    rows = torch.tensor([[[1, 2], [1, 2], [1, 3], [4, 5]], [[6, 6], [6, 7], [6, 6], [6, 6]]])
    drawn = Candidates(lambda n: rows.transpose(0, 1)[:n], 4, first=4)
    subsets = torch.tensor([[[0, 1], [0, 2], [1, 1]], [[0, 1], [2, 3], [3, 0]]])
    got = agreeing(drawn, torch.tensor([0, 1]), subsets)
    assert got.tolist() == [[True, False, False], [False, True, True]]


def test_same_seed_same_choice():
    candidates = torch.randint(4, (64, 50, 2), generator=seeded())

    def run(seed):
        return BatchTemperature(0.5, 64)(Prepared(candidates), seeded(seed)).tokens

    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))


def test_an_empty_batch():
    got = BatchTemperature(0.5, 64)(lambda n: torch.zeros(n, 0, 2, dtype=torch.long), seeded())
    assert got.tokens.shape == (0, 2) and got.draws.shape == (0,)
