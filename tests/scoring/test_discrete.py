"""Discrete scores: loops, other libraries, enumeration, and why spherical has no estimator."""

import itertools
import math

import numpy as np
import pytest
import scoringrules
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from seeding import seeded

from calmkit.scoring.discrete import (
    brier_score,
    brier_score_of,
    collision_rate,
    hit_rate,
    spherical_score,
)
from calmkit.scoring.energy import energy_score

seeds = st.integers(0, 2**31 - 1)
batches = st.sampled_from([(), (1,), (3,), (2, 3)])
of_probabilities = pytest.mark.parametrize("score", [brier_score_of, spherical_score])


@st.composite
def draw_problems(draw):
    """Few kinds of tokens, so that draws collide in some places only; tokens of any size."""
    batch, m, tokens = draw(batches), draw(st.integers(2, 9)), draw(st.integers(1, 4))
    g = seeded(draw(seeds))
    names = torch.tensor([-(2**62), 5, 2**62])
    draws = names[torch.randint(draw(st.integers(1, 3)), (m, *batch, tokens), generator=g)]
    return draws, names[torch.randint(2, (*batch, tokens), generator=g)]


@st.composite
def known_problems(draw):
    batch, outcomes, g = draw(batches), draw(st.integers(1, 5)), seeded(draw(seeds))
    p = torch.softmax(2 * torch.randn(*batch, outcomes, generator=g), -1)
    return p, torch.randint(outcomes, batch, generator=g)


def each(shape):
    return itertools.product(*map(range, shape))


# --- Brier score from draws -------------------------------------------------------------------


@given(draw_problems())
def test_brier_matches_a_loop(problem):
    draws, target = problem
    m, batch = draws.shape[0], target.shape[:-1]
    want = torch.empty(batch)
    for index in each(batch):
        rows, y = [draws[(s, *index)].tolist() for s in range(m)], target[index].tolist()
        hits = sum(x == y for x in rows)
        pairs = sum(a == b for a, b in itertools.combinations(rows, 2))
        want[index] = 1 - 2 / m * hits + 2 / (m * (m - 1)) * pairs
    got = brier_score(draws, target)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
    assert ((got >= -1e-15) & (got <= 2 + 1e-15)).all()


@given(draw_problems())
def test_rates_match_counting(problem):
    draws, target = problem
    m = len(draws)
    equal = (draws[:, None] == draws[None]).all(-1)
    pairs = (equal.sum((0, 1)) - m).double() / (m * (m - 1))
    torch.testing.assert_close(collision_rate(draws), pairs, rtol=1e-15, atol=0)
    hits = (draws == target).all(-1).sum(0).double() / m
    torch.testing.assert_close(hit_rate(draws, target), hits, rtol=1e-15, atol=0)


def test_many_draws_are_counted_exactly():
    draws = torch.randint(3, (500, 20, 4), generator=seeded())
    want = torch.zeros(20)
    for position in range(20):
        _, counts = draws[:, position].unique(dim=0, return_counts=True)
        want[position] = (counts * (counts - 1)).sum() / (500 * 499)
    torch.testing.assert_close(collision_rate(draws), want, rtol=1e-15, atol=0)


@given(seeds, st.integers(2, 7), st.integers(2, 4))
def test_brier_is_the_energy_score_of_one_hot_vectors(seed, m, outcomes):
    """Corners of a simplex are at distance sqrt(2) [x != y]: ours and another library's."""
    draws = torch.randint(outcomes, (m, 5, 1), generator=seeded(seed))
    target = torch.randint(outcomes, (5, 1), generator=seeded(seed + 1))
    corners = torch.eye(outcomes)
    x, y = corners[draws.squeeze(-1)], corners[target.squeeze(-1)]
    got = brier_score(draws, target)
    torch.testing.assert_close(got, math.sqrt(2) * energy_score(x, y))
    other = scoringrules.es_ensemble(
        y.numpy(), x.transpose(0, 1).numpy(), estimator="fair", backend="numpy"
    )
    torch.testing.assert_close(got, math.sqrt(2) * torch.from_numpy(np.asarray(other)))


@given(draw_problems(), st.randoms(use_true_random=False))
def test_brier_knows_neither_order_nor_names(problem, random):
    draws, target = problem
    shuffled = draws[random.sample(range(len(draws)), len(draws))]
    base = brier_score(draws, target)
    assert torch.equal(brier_score(shuffled, target), base)
    assert torch.equal(brier_score(3 - draws, 3 - target), base)
    assert torch.equal(brier_score(draws.flip(-1), target.flip(-1)), base)


def finite_problem(seed, size=4):
    """A true law and a rival on `size` outcomes."""
    p, q = torch.softmax(1.5 * torch.randn(2, size, generator=seeded(seed)), -1)
    assume((p - q).abs().max() > 1e-3)
    return p, q


def drawn_lists(p, m):
    """All lists of m draws from p, (m, lists), with their probabilities."""
    lists = torch.tensor(list(itertools.product(range(len(p)), repeat=m)))
    return lists.T, p[lists].prod(-1)


def enumerated_brier(p, q, m):
    """E_{y ~ p} E_{x ~ q^m} of the score, on the four outcomes of two binary tokens."""
    lists, weight = drawn_lists(q, m)
    tokens = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    targets = tokens[:, None].expand(-1, lists.shape[1], -1)
    scores = brier_score(tokens[lists][:, None].expand(-1, 4, -1, -1), targets)
    return (p[:, None] * weight * scores).sum()


@given(seeds, st.integers(2, 4))
def test_brier_is_unbiased_and_strictly_proper(seed, m):
    p, q = finite_problem(seed)
    want = sum(p[y] * ((q - torch.eye(4)[y]) ** 2).sum() for y in range(4))
    got, truth = enumerated_brier(p, q, m), enumerated_brier(p, p, m)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    # The excess of a rival is its squared distance: positive but at the truth.
    torch.testing.assert_close(got - truth, (p - q).square().sum(), rtol=1e-12, atol=1e-12)


def test_certain_predictions():
    draws = torch.zeros(5, 4, dtype=torch.long)
    assert brier_score(draws, draws[0]) == 0
    assert brier_score(draws, draws[0] + 1) == 2
    # One token off is another outcome.
    assert brier_score(draws, torch.tensor([0, 0, 0, 1])) == 2


@pytest.mark.parametrize("batch", [(0,), (2, 0)], ids=str)
def test_empty_batches(batch):
    draws = torch.zeros(3, *batch, 4, dtype=torch.long)
    p = torch.ones(*batch, 5)
    assert brier_score(draws, draws[0]).shape == batch
    assert brier_score_of(p, draws[0, ..., 0]).shape == batch
    assert spherical_score(p, draws[0, ..., 0]).shape == batch


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_brier_is_in_double_precision(dtype):
    draws = torch.randint(2, (4, 3, 2), generator=seeded())
    got = brier_score(draws.to(dtype), draws[0].to(dtype))
    assert got.dtype == torch.float64
    assert torch.equal(got, brier_score(draws, draws[0]))


# --- scores of known distributions ------------------------------------------------------------


@of_probabilities
@given(known_problems())
def test_known_distributions_match_a_loop(score, problem):
    p, target = problem
    want = torch.empty(target.shape)
    for index in each(target.shape):
        y, row = int(target[index]), p[index].tolist()
        want[index] = {
            brier_score_of: sum((value - (x == y)) ** 2 for x, value in enumerate(row)),
            spherical_score: -row[y] / math.sqrt(sum(value**2 for value in row)),
        }[score]
    torch.testing.assert_close(score(p, target), want, rtol=1e-14, atol=1e-14)


@given(known_problems())
def test_brier_matches_scoringrules(problem):
    """Its score of two outcomes, summed over the indicators of each outcome."""
    p, target = problem
    hit = torch.nn.functional.one_hot(target, p.shape[-1])
    other = scoringrules.brier_score(hit.numpy(), p.numpy(), backend="numpy").sum(-1)
    torch.testing.assert_close(brier_score_of(p, target), torch.as_tensor(other))


@of_probabilities
@given(seeds, st.integers(2, 6))
def test_known_distributions_are_scored_strictly_properly(score, seed, size):
    p, q = finite_problem(seed, size)
    outcomes = torch.arange(size)

    def expected(law):
        return float(p @ score(law.expand(size, size), outcomes))

    # Savage: the excess is a divergence, of which both have a closed form.
    excess = {
        brier_score_of: (p - q).square().sum(),
        spherical_score: p.norm() - (p @ q) / q.norm(),
    }[score]
    assert expected(q) - expected(p) == pytest.approx(float(excess), abs=1e-12)
    assert excess > 1e-9
    assert expected(q) > expected(p)


@of_probabilities
@given(known_problems(), st.randoms(use_true_random=False))
def test_outcomes_can_be_relabelled(score, problem, random):
    p, target = problem
    label = torch.tensor(random.sample(range(p.shape[-1]), p.shape[-1]))
    relabelled = torch.empty_like(p)
    relabelled[..., label] = p
    torch.testing.assert_close(score(relabelled, label[target]), score(p, target))


@of_probabilities
def test_range(score):
    p = torch.tensor([1.0, 0.0, 0.0])
    best, worst = {brier_score_of: (0, 2), spherical_score: (-1, 0)}[score]
    assert score(p, torch.tensor(0)) == best
    assert score(p, torch.tensor(1)) == worst


@of_probabilities
@given(known_problems())
def test_gradients(score, problem):
    p, target = problem
    logits = p.log().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: score(z.softmax(-1), target), logits)


@of_probabilities
def test_gradients_are_finite_at_corners_and_in_many_outcomes(score):
    corners = torch.eye(3).requires_grad_()
    many = torch.full((3, 200_000), 1 / 200_000, dtype=torch.float32).requires_grad_()
    for p in (corners, many):
        score(p, torch.tensor([0, 1, 0])).sum().backward()
        assert torch.isfinite(p.grad).all()


def test_brier_keeps_its_digits_near_zero():
    """1 - 2 p(y) + sum p^2 would be 0, or below it, in single precision."""
    rest = torch.tensor([1e-2, 1e-4, 1e-6])
    p = torch.stack((1 - rest, 0.75 * rest, 0.25 * rest), dim=-1).float()
    got = brier_score_of(p, torch.zeros(3, dtype=torch.long))
    want = (p.double() - torch.eye(3)[0]).square().sum(-1)
    torch.testing.assert_close(got.double(), want, rtol=3e-7, atol=0)


@of_probabilities
def test_half_precision_is_raised(score):
    logits = torch.randn(4, 1000, generator=seeded())
    target = torch.tensor([0, 1, 2, 3])
    p = logits.softmax(-1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = score(p, target)
    assert got.dtype == torch.float32
    torch.testing.assert_close(
        got, score(p.double() / p.double().sum(-1, True), target).float(), rtol=5e-3, atol=0
    )
    assert score(p.double() / p.double().sum(-1, True), target).dtype == torch.float64


# --- what draws can and cannot estimate -------------------------------------------------------


@pytest.mark.parametrize(("m", "least"), [(1, 0.3), (2, 0.2), (4, 0.1), (7, 0.08)])
def test_plug_in_spherical_score_is_biased(m, least):
    """Frequencies in place of probabilities: over all lists of draws, far off the score."""
    p = torch.tensor([0.5, 0.3, 0.2])
    lists, weight = drawn_lists(p, m)
    frequencies = torch.nn.functional.one_hot(lists, 3).double().mean(0)
    plugged = weight @ spherical_score(frequencies, torch.zeros(len(weight), dtype=torch.long))
    assert abs(plugged - spherical_score(p, torch.tensor(0))) > least
    # The same frequencies do estimate p itself: the enumeration has no bias of its own.
    torch.testing.assert_close(weight @ frequencies, p, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_no_function_of_draws_estimates_the_spherical_score(m):
    """In p = (t, 1 - t) the expectation of a function of m draws has degree m at most.

    Differences of order m + 1 vanish then. They do for Brier from m draws, not for spherical.
    """
    t = torch.linspace(0, 1, m + 2)
    laws, target = torch.stack((t, 1 - t), dim=-1), torch.zeros(m + 2, dtype=torch.long)

    def difference(values):
        return float(values.diff(n=m + 1))

    estimated = []
    for law in laws:
        lists, weight = drawn_lists(law, m)
        zeros = torch.zeros(lists.shape[1], 1, dtype=torch.long)
        estimated.append(weight @ brier_score(lists[..., None], zeros))
    torch.testing.assert_close(torch.stack(estimated), brier_score_of(laws, target))
    assert abs(difference(torch.stack(estimated))) < 1e-12
    assert abs(difference(spherical_score(laws, target))) > 0.01


# --- use --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(dynamic):
    def scores(draws, target, p):
        y = target[..., 0]
        return brier_score(draws, target), brier_score_of(p, y), spherical_score(p, y)

    torch._dynamo.reset()
    compiled = torch.compile(scores, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for batch in (4, 7):
        draws = torch.randint(3, (6, batch, 2), generator=seeded())
        p = torch.randn(batch, 3, generator=seeded()).softmax(-1)
        torch.testing.assert_close(compiled(draws, draws[0], p), scores(draws, draws[0], p))


def test_maps_over_a_batch():
    p = torch.randn(4, 3, generator=seeded()).softmax(-1)
    draws = torch.randint(3, (6, 4, 2), generator=seeded())
    y = draws[0, :, 0]
    for score in (brier_score_of, spherical_score):
        torch.testing.assert_close(torch.vmap(score)(p, y), score(p, y))
    mapped = torch.vmap(brier_score, in_dims=(1, 0))(draws, draws[0])
    torch.testing.assert_close(mapped, brier_score(draws, draws[0]))


@of_probabilities
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        ([1.1, -0.1], 0, r"probabilities must not be negative or NaN; got -0\.1"),
        ([math.nan, 1.0], 0, "probabilities must not be negative or NaN; got nan"),
        ([math.inf, 1.0], 0, r"probabilities must sum to 1 .* got inf"),
        ([0.5, 0.25], 0, r"probabilities must sum to 1 .* within 1e-08; got 0\.75"),
        ([0.5, 0.5000001], 0, "probabilities must sum to 1"),
        ([0.5, 0.5], 2, r"target must be in \[0, 1\].* got 2"),
        ([0.5, 0.5], -1, r"target must be in \[0, 1\].* got -1"),
    ],
)
def test_bad_values_are_named(score, p, y, message):
    good = torch.tensor([[0.5, 0.5]])
    with pytest.raises(ValueError, match=message):
        score(torch.cat((good, torch.tensor([p]))), torch.tensor([0, y]))


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_draws(count):
    draws = torch.zeros(count, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=f"draws must hold at least 2 samples.* got {count}"):
        brier_score(draws, torch.zeros(4, dtype=torch.long))


def test_mismatched_shapes_are_refused():
    draws = torch.zeros(3, 2, 4, dtype=torch.long)
    with pytest.raises(TypeCheckError):
        brier_score(draws, draws[0, :1])
    for score in (brier_score_of, spherical_score):
        with pytest.raises(TypeCheckError):
            score(torch.full((2, 2), 0.5), torch.tensor([0]))
