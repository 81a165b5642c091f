"""The command at a size that takes a moment, its correlations and its models."""

import argparse
import math
from itertools import product

import pytest
from benchmark_runs import check_form, results, run_benchmark

ORDERS = (1, 2, 3, 4)
HEADS = ["EnergyHead", "EnergyHead, N = 2", "GaussianHead"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sizes = "--chunks 1 2 --steps 30 --checkpoints 3 --autoencoder-steps 150 --batch 8 --length 16"
    sizes += " --context 8 --rows 8 --draws 300 --branches 40 --states 3 --vocab 4"
    sizes += " --hidden 16 --latent 8"
    more = ["--heads", *HEADS, "--plot", folder / "plot.png"]
    return run_benchmark(folder, "known_truth", sizes, *more)


@pytest.fixture
def known(load):
    return load("known_truth")


@pytest.fixture
def report(load):
    return load("known_truth_report")


def test_prints_tables_and_writes_the_same_json(written):
    check_form(written)
    printed, found = written[0], results(written)
    # A line of each chunk size's table, and those of the JSON.
    assert "Spearman" in printed and printed.count("perfect head") == 2 * 2
    assert found["setting"]["vocab"] == 4
    low, high = found["entropy_rate"]
    assert 0 < low < high < math.log(4)


def test_every_model_is_measured_at_every_checkpoint(written):
    worlds = results(written)["worlds"]
    assert [world["chunk"] for world in worlds] == [1, 2]
    for world in worlds:
        models = [*HEADS, *(["TokenLM"] if world["chunk"] == 1 else [])]
        assert [(row["model"], row.get("step")) for row in world["rows"]] == [
            ("truth", None),
            ("perfect head", None),
            *product(models, (10, 20, 30)),
        ]
        assert 0.9 < world["autoencoder_accuracy"] <= 1
        for row in world["rows"]:
            assert row["kl"] == pytest.approx(world["chunk"] * row["excess_cross_entropy"])
            excess = row["cross_entropy"] - world["entropy"]
            assert excess == pytest.approx(row["excess_cross_entropy"])
        best = math.prod(world["brier_optimum"]) ** (1 / 4)
        assert world["brier_lm_optimum"] == pytest.approx(best)
        for row in world["rows"][2:]:
            scores = [row[f"brier_{order}"] for order in ORDERS]
            brier_lm = math.prod(scores) ** (1 / 4) if min(scores) > 0 else 0
            assert row["brier_lm"] == pytest.approx(brier_lm)
            assert row["share_of_optimum"] == pytest.approx(brier_lm / best)
            expected = row["expected_brier_lm"] / world["expected_brier_lm_optimum"]
            assert row["expected_share"] == pytest.approx(expected)


def test_models_are_farther_from_the_truth_than_its_draws_and_come_nearer(written):
    for world in results(written)["worlds"]:
        truth, perfect, *models = world["rows"]
        for name in ("total_variation", "kl", "brier_regret"):
            assert truth[name] <= perfect[name]
            assert all(row[name] > truth[name] for row in models)
        for name in {row["model"] for row in models}:
            first, *_, last = [row for row in models if row["model"] == name]
            assert last["kl"] < first["kl"]


def test_correlations_are_of_the_rows(written, report):
    found = results(written)
    assert set(found["correlations"]) == {"K = 1", "K = 2", "all"}
    counted = {
        name: [values[key] for key in ("rows", "ends", "energy")]
        for name, values in found["correlations"].items()
    }
    assert counted == {"K = 1": [12, 4, 6], "K = 2": [9, 3, 6], "all": [21, 7, 12]}
    assert report.correlations(found["worlds"]) == found["correlations"]
    # Of the ends and of the energy-trained, chosen here by their names.
    rows = found["worlds"][0]["rows"][2:]
    ends = [row for row in rows if row["step"] == 30]
    energy = [row for row in rows if row["model"].startswith("Energy")]
    for score, values in report.SCORES.items():
        shown = found["correlations"]["K = 1"][score]
        for name, chosen, distance in (
            ("total variation", rows, "total_variation"),
            ("KL", rows, "kl"),
            ("total variation, ends", ends, "total_variation"),
            ("cross entropy, energy", energy, "cross_entropy"),
        ):
            signed = [values * row[score] for row in chosen]
            less = [-row[distance] for row in chosen]
            assert shown[name] == pytest.approx(report.spearmanr(signed, less).statistic)


def test_correlations_have_the_sign_of_agreement(report):
    def rows(scores, distances):
        names = ("share_of_optimum", "kl")
        return [
            dict(zip(names, pair, strict=True)) for pair in zip(scores, distances, strict=True)
        ]

    same, opposite = [0.1, 0.2, 0.9], [0.9, 0.2, 0.1]
    assert report.correlate(rows(same, opposite), "share_of_optimum", "kl") == pytest.approx(1)
    assert report.correlate(rows(same, same), "share_of_optimum", "kl") == pytest.approx(-1)
    assert report.correlate(rows(same, same), "kl", "kl") == pytest.approx(1)
    pearson = report.correlate(rows(same, [3, 2, 1]), "share_of_optimum", "kl", report.pearsonr)
    assert pearson == pytest.approx(0.8 / math.sqrt(2 * 0.38))
    assert report.correlate(rows([1, 1, 1], same), "share_of_optimum", "kl") is None
    assert report.correlate(rows([1, 2], [2, 1]), "share_of_optimum", "kl") is None


def test_every_name_builds_a_head_of_the_size_asked_for(known):
    args = argparse.Namespace(hidden=16, latent=8)
    for name in [*known.every_head(), *known.ENERGY]:
        head = known.build_head(args, name)
        assert (head.cond_size, head.latent_size) == (16, 8)
    assert known.build_head(args, "EnergyHead, N = 2").num_samples == 2
    assert known.build_head(args, "EnergyHead, alpha = 0.5").rule.alpha == 0.5
    assert known.build_head(args, "EnergyHead").cond_embedding.out_features == 16


def test_lengths_that_do_not_fit_are_refused(known, capsys):
    with pytest.raises(SystemExit):
        known.main(["--length", "30"])
    assert "--length must be a multiple of each of --chunks [1, 2, 4]." in capsys.readouterr().err
