import math

import pytest
import torch
from benchmark_runs import check_form, results, run_benchmark
from torch.testing import assert_close

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import EnergyHead
from calmkit.scoring import EnergyScore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sizes = "--hidden 16 --latent 8 --depth 2 --samples 3 --positions 8 --candidates 20 --rounds 2"
    sizes += " --sampling-positions 4 --head-cond 16 --head-width 256 --head-samples 2"
    sizes += " --head-positions 3 --head-rounds 1 --points 1024 --evaluations 1 4 8 16"
    sizes += " --tolerances 0.1 0.001 --distances 0.1 1e-9"
    return run_benchmark(folder, "heads_micro", sizes, "--plot", folder / "plot.png")


def test_prints_tables_and_writes_the_same_json(written):
    check_form(written)
    found = results(written)
    assert found["clock"] == "processor seconds" and found["setting"]["candidates"] == 20


def test_energy_heads_are_compared_in_training_and_sampling(written):
    rows = results(written)["energy"]
    assert [(row["task"], row["samples"], row["positions"]) for row in rows] == [
        ("training", 3, 8),
        ("sampling", 20, 4),
    ]
    for row in rows:
        assert row["difference"] < 1e-5
        for unit in ("milliseconds", "megabytes"):
            assert set(row[unit]) == {"calmkit", "literal"} and min(row[unit].values()) > 0
        assert 1 < row["times_fewer_operations"] < 1.25 < 2 > row["times_smaller"] > 1
        faster = row["times_faster"]
        assert 0 < faster["least"] <= faster["median"] <= faster["most"]
    # d = 16, depth 2, noise 64, latent 8: products of a sample, and of a position.
    ours = 20 * (2 * 5 + 1) * 16**2 + 20 * (64 + 8) * 16 + (1 + 2) * 16**2
    theirs = 20 * ((2 * 6 + 2) * 16**2 + (64 + 8) * 16)
    assert rows[1]["times_fewer_operations"] == pytest.approx(theirs / ours)


def test_every_head_is_timed_at_equal_parameters(written, load):
    rows = {row["head"]: row for row in results(written)["heads"]}
    assert (
        set(rows)
        == set(load("head_rates").every_head())
        >= {"EnergyHead", "FlowHead", "DiffusionHead"}
    )
    assert "GuidedHead" not in rows
    for row in rows.values():
        assert row["samples_per_second"] > 0 and row["parameters"] > 0
        assert row["width"] is None or row["width"] % 8 == 0
        if row["width"] is not None:
            assert row["share_of_parameters_wanted"] == pytest.approx(1, abs=0.05)
    assert rows["EnergyHead"]["width"] == 256 and rows["EnergyHead"]["evaluations"] == 1


def test_curves_fall_and_say_what_they_need(written):
    found = results(written)["solvers"]
    one_a_step = ("Euler", "DDPM", "DDIM", "DDIM, eta = 1", "DPM-Solver++")
    exact = {name: [1, 4, 8, 16] for name in one_a_step}
    exact |= {name: [4, 8, 16] for name in ("Midpoint", "Heun", "RungeKutta4")}
    assert set(found["curves"]) == {*exact, "Adaptive"}
    assert found["floors"]["Sobol net"] < found["floors"]["independent draws"] < found["start"]
    for name, curve in found["curves"].items():
        assert curve["evaluations"] == exact.get(name, curve["evaluations"])
        assert curve["distance"] == sorted(curve["distance"], reverse=True)
        assert curve["distance"][-1] > found["floors"]["Sobol net"] / 2
        assert found["needed"]["1e-09"][name] is found["samples_per_second"]["1e-09"][name] is None
        needed = found["needed"]["0.1"][name]
        if needed is not None:
            assert curve["distance"][curve["evaluations"].index(needed)] <= 0.1
            assert found["samples_per_second"]["0.1"][name] > 0
    assert found["curves"]["RungeKutta4"]["distance"][-1] < 0.02
    assert found["curves"]["Euler"]["slope"] == pytest.approx(-1, abs=0.3)


def test_literal_head_is_the_formula_of_the_paper(load):
    cost, count = load("energy_head_cost"), load("head_rates").count_parameters
    head = EnergyHead(5, 3, width=6, depth=2, noise_size=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    cond = torch.randn(2, 5, generator=generator)
    noise = torch.randn(7, 2, 4, generator=generator)
    literal = cost.LiteralEnergyHead(head)
    assert [block.join.in_features for block in literal.blocks] == [12, 12]
    assert count(literal) == count(head)
    samples = head.sample_from(cond, noise)
    assert_close(literal.sample_from(cond, noise), samples)
    assert cost.largest_difference(head, literal, cond, noise) < 1e-12
    with torch.no_grad():
        literal.blocks[1].join.bias[0] += 1e-3
    assert cost.largest_difference(head, literal, cond, noise) > 1e-6


def posterior(target, x, a, b):
    """E[z | x] and E[eps | x] by integration over a grid of z, component by component."""
    axis = torch.linspace(-4, 4, 401)
    z = torch.cartesian_prod(axis, axis)
    density = sum(
        w * torch.exp(-(z - m).square().sum(-1) / (2 * target.std**2))
        for w, m in zip(target.weights, target.means, strict=True)
    )
    density = density * torch.exp(-(x - a * z).square().sum(-1) / (2 * b**2))
    clean = (density[:, None] * z).sum(0) / density.sum()
    return clean, (x - a * clean) / b


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.7), (0.9, 0.4), (0.5, 1.0)])
def test_estimates_are_the_posterior_means(load, a, b):
    target = load("known_mixture").Mixture.ring(CPU)
    x = torch.tensor([[0.4, -0.3], [1.0, 1.5], [-0.2, 0.1]])
    found = target.estimates(x, torch.tensor(a), torch.tensor(b))
    for i, row in enumerate(x):
        for got, want in zip(found, posterior(target, row, a, b), strict=True):
            assert_close(got[i], want, rtol=1e-6, atol=1e-6)


def test_estimates_are_finite_at_the_ends_of_the_path(load):
    target = load("known_mixture").Mixture.ring(CPU)
    x, zero, one = torch.randn(5, 2), torch.tensor(0.0), torch.tensor(1.0)
    clean, noise = target.estimates(x, one, zero)
    assert_close(clean, x)
    assert_close(noise, torch.zeros(5, 2))
    clean, noise = target.estimates(x, zero, one)
    assert_close(clean, (target.weights @ target.means).expand(5, 2))
    assert_close(noise, x)


def test_distance_is_the_energy_distance_of_all_pairs(load):
    target = load("known_mixture").Mixture.ring(CPU, components=3, std=0.3)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    score = EnergyScore()

    def to_target(points):  # mean distance to the mixture, in closed form
        means = [
            score.expected(points, DiagonalGaussian(m, torch.full_like(m, target.std))).mean()
            for m in target.means
        ]
        return float(target.weights @ torch.stack(means))

    wide = DiagonalGaussian(torch.zeros(2), torch.full((2,), math.sqrt(2) * target.std))
    within = sum(
        float(v * w * score.expected((m - n)[None], wide)[0])
        for v, m in zip(target.weights, target.means, strict=True)
        for w, n in zip(target.weights, target.means, strict=True)
    )
    # The 32 directions are exact to 4e-4 of a distance.
    assert target.mean_distance() == pytest.approx(within, rel=5e-4)
    square = 2 * to_target(x) - float(torch.cdist(x, x).mean()) - within
    assert target.distance(x) ** 2 == pytest.approx(square, rel=5e-3)


def test_drawn_samples_are_of_the_mixture(load):
    known = load("known_mixture")
    target = known.Mixture.ring(CPU)
    points = known.sobol_points(2**12, 3, 0, CPU)
    found = target.draw(points)
    assert target.distance(found) < 0.005
    assert_close(found.mean(0), target.weights @ target.means, rtol=0, atol=2e-3)
    # Shares of components that are slightly wrong do show.
    wrong = known.Mixture(target.weights.flip(0), target.means, target.std)
    assert target.distance(wrong.draw(points)) > 0.1
    assert target.mean_distance() ** 0.5 / 64 > 2 * target.distance(found)


def test_least_evaluations_from_which_on_a_distance_is_kept(load):
    evaluations_needed = load("solver_quality").evaluations_needed
    curve = {"evaluations": [1, 2, 4, 8, 16], "distance": [0.5, 0.09, 0.2, 0.1, 0.05]}
    assert evaluations_needed(curve, 0.1) == 8
    assert evaluations_needed(curve, 1.0) == 1
    assert evaluations_needed(curve, 0.01) is None


def test_slope_is_of_the_last_points_above_the_floor(load):
    last_slope = load("solver_quality").last_slope
    evaluations, distances = [1, 2, 4, 8, 16], [9.0, 4.0, 1.0, 0.25, 0.2]
    assert last_slope(evaluations, distances, 0.21) == pytest.approx(-2)
    assert last_slope(evaluations, distances, 2.0) is None


def test_clock_can_be_chosen(load):
    ticks = iter(range(100))
    found = load("measuring").interleaved_seconds(
        {"a": lambda: None, "b": lambda: None}, 2, CPU, clock=lambda: float(next(ticks))
    )
    assert found == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
