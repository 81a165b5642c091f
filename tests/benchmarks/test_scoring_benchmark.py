from itertools import product

import pytest
import torch
from benchmark_runs import check_form, results, run_benchmark
from torch.testing import assert_close

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import EnergyScore

CPU = torch.device("cpu")


@pytest.fixture
def measuring(load):
    return load("measuring")


@pytest.fixture
def scoring(load):
    return load("scoring")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sizes = "--samples 3 --targets 5 --latent 8 --positions 32 128 --goal-positions 64 --rounds 2"
    sizes += " --repeats 64"
    return run_benchmark(folder, "scoring", sizes, "--plot", folder / "plot.png")


def test_prints_tables_and_writes_the_same_json(written):
    check_form(written)
    assert written[0].count("mean score") == 3 * 3 + 3


def test_compares_the_methods_at_each_number_of_positions(written):
    methods = results(written)["methods"]
    names = {"literal", "closed form", "sampled"}
    assert [row["positions"] for row in methods["rows"]] == [32, 64, 128]
    for row in methods["rows"]:
        for unit in ("milliseconds", "megabytes", "mean_score"):
            assert set(row[unit]) == names and min(row[unit].values()) > 0
        exact = row["mean_score"]["closed form"]
        for score in row["mean_score"].values():
            assert abs(score - exact) < 4.9 * row["standard_error"]
        # The largest tensor of the formula, and more than one of them.
        assert row["megabytes"]["literal"] > 2 * 3 * 5 * row["positions"] * 8 * 4 / 1e6
    assert set(methods["slopes"]) == names
    assert methods["slopes"]["literal"]["megabytes"] == pytest.approx(1, abs=0.05)
    for name, goal in methods["goals"].items():
        at = methods["rows"][1]
        assert goal["times_smaller"] == pytest.approx(
            at["megabytes"]["literal"] / at["megabytes"][name]
        )
        faster = goal["times_faster"]
        assert 0 < faster["least"] <= faster["median"] <= faster["most"]
        assert goal["times_faster_wanted"] > 1 < goal["times_smaller_wanted"]


def test_variance_of_the_gradient_is_the_closed_forms_and_that_of_the_targets(written):
    rows = results(written)["gradient_variance"]
    by = {(row["spread"], row["rule"]): row for row in rows}
    assert set(by) == set(product((0.3, 1.0), ("closed form", "M = 1", "M = 16", "M = 100")))
    for spread in (0.3, 1.0):
        exact = by[spread, "closed form"]
        assert exact["targets_redrawn"] < 1e-12
        noise = by[spread, "M = 1"]["targets_redrawn"]
        for m in (1, 16, 100):
            row = by[spread, f"M = {m}"]
            # Both are estimates, with standard errors of about 0.02 of the value.
            assert row["targets_redrawn"] == pytest.approx(noise / m, rel=0.15)
            total = exact["samples_redrawn_too"] + row["targets_redrawn"]
            assert row["samples_redrawn_too"] == pytest.approx(total, rel=0.15)


def test_agrees_with_scoringrules(written):
    rows = results(written)["scoringrules"]
    assert [row["samples"] for row in rows] == [3, 24] * 3
    for row in rows:
        assert row["difference"] < 1e-5 and max(row["error"].values()) < 1e-5
        assert min(*row["milliseconds"].values(), *row["megabytes"].values()) > 0


def test_literal_score_is_half_the_published_loss(scoring):
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(3, 2, 4, generator=generator)
    target = DiagonalGaussian(
        torch.randn(2, 4, generator=generator), torch.rand(2, 4, generator=generator)
    )
    noise = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1))
    found = scoring.literal_score(samples, target, torch.Generator().manual_seed(1), 5)
    for position in range(2):
        x, z = samples[:, position], (target.mean + target.std * noise)[:, position]
        loss = 2 / 15 * sum((a - b).norm() for a, b in product(x, z))
        loss -= 1 / 6 * sum((a - b).norm() for a, b in product(x, x))
        assert_close(found[position], loss / 2)


def test_literal_score_of_a_point_mass_is_the_energy_score(scoring):
    samples, _ = scoring.draw_problem(4, 6, 3, torch.Generator().manual_seed(0))
    target = DiagonalGaussian.point_mass(torch.zeros(6, 3, dtype=torch.float32))
    found = scoring.literal_score(samples, target, torch.Generator())
    assert_close(found, EnergyScore().score(samples, target))


def test_peak_bytes_counts_what_is_alive_at_once_and_temporaries_of_operators(measuring):
    before = torch.ones(1000)

    def work():
        first = before + 1  # 8000 bytes
        second = first.expand(2, 1000).contiguous()  # 16000 more: the peak
        del first, second
        before.new_empty(1500)

    assert measuring.peak_bytes(work, CPU) == 24000
    assert measuring.peak_bytes(work, CPU) == 24000

    def hidden():  # an expanded operand is copied within the product
        torch.bmm(before.view(10, 10, 10), before.view(10, 10, 10)[:1].mT.expand(10, 10, 10))

    assert measuring.peak_bytes(hidden, CPU) >= 8000


def test_works_take_turns(measuring):
    order = []
    works = {name: lambda name=name: order.append(name) for name in "abc"}
    found = measuring.interleaved_seconds(works, 2, CPU)
    assert "".join(order) == "abccbaabc"
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2, "c": 2}


def test_ratios_are_taken_within_rounds(measuring):
    found = measuring.times_faster([1.0, 10.0, 3.0], [4.0, 20.0, 27.0])
    assert found == {"median": 4.0, "least": 2.0, "most": 9.0}


def test_slope_of_a_power(measuring):
    assert measuring.log_log_slope([1, 2, 8], [3.0, 12.0, 192.0]) == pytest.approx(2)
