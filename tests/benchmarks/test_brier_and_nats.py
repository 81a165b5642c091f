"""The command at a size that takes a moment, and its correlations and comparisons."""

import numpy as np
import pytest
import torch
import yaml
from benchmark_runs import check_form, results, run_benchmark
from prepared_folders import write_prepared
from safetensors.torch import save_file
from scipy.stats import pearsonr, spearmanr

from calmkit.config import build
from calmkit.metrics import DocumentScores, combine_brier

SHARED = {
    "vocab_size": 20, "hidden_size": 16, "latent_size": 6,
    "autoencoder": {"class_path": "MLPAutoencoder", "init_args": {"width": 16}},
    "backbone": {"class_path": "TransformerBackbone", "init_args": {"depth": 1, "heads": 2}},
    "head": {"class_path": "EnergyHead", "init_args": {"width": 16, "depth": 1}},
}  # fmt: skip
CONFIGS = {
    "softmax": {**SHARED, "model": "token_lm", "chunk_size": 1},
    "calm": {**SHARED, "chunk_size": 2},
}


def write_training(folder, config):
    """A config and two checkpoints, the second of which is surer of every token."""
    folder.mkdir()
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    model = build(file)
    for step in (10, 20):
        at = folder / f"step-{step:06d}"
        at.mkdir()
        save_file(dict(model.state_dict()), at / "model.safetensors")
        if config.get("model") == "token_lm":
            with torch.no_grad():
                model.output.weight.mul_(3)
    return file, folder


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder, numbers = tmp_path_factory.mktemp("benchmark"), np.random.default_rng(0)
    documents = [np.r_[7, numbers.integers(20, size=200), 7] for _ in range(14)]
    text = folder / "prepared"
    write_prepared(
        text, train=documents[:4], validation=documents[4:], shard_tokens=10_000, vocab_size=20
    )
    sizes = "--rows 10 --length 20 --context 8 --draws 2 --latent-draws 12 --steps 4 --batch 2"
    sizes += " --checkpoints 2 --autoencoder-steps 4 --width 16 --head-depth 1 --latent 6"
    sizes += " --heads Gaussian energy --bridges mixture --resamples 20"
    more = ["--data", text, "--plot", folder / "plot.png", "--folder", folder / "run"]
    for name, config in CONFIGS.items():
        more += [f"--{name}", *write_training(folder / name, config)]
    return run_benchmark(folder, "brier_and_nats", sizes, *more)


@pytest.fixture
def told(load):
    return load("brier_and_nats_report")


def test_every_model_is_measured_at_every_checkpoint(written):
    check_form(written)
    printed, found = written[0], results(written)
    steps = {"softmax": (10, 20), "Gaussian, K = 1": (2, 4), "energy, K = 1": (2, 4),
             "energy, K = 2": (10, 20), "mixture, K = 2": (2, 4)}  # fmt: skip
    models = [(row["kind"], row["step"]) for row in found["models"]]
    assert models == [(kind, step) for kind, both in steps.items() for step in both]
    assert all(f"{kind}, {both[0]} to {both[1]}:" in printed for kind, both in steps.items())
    for row in found["models"]:
        assert row["nats"]["value"] > 0 and row["nats"]["standard_error"] > 0
        brier = torch.tensor([row[f"brier_{n}"]["value"] / 100 for n in range(1, 5)])
        assert row["brier_lm"]["value"] == pytest.approx(float(combine_brier(brier)), rel=1e-5)
        if row["kind"] == "softmax":
            assert row["drawn_brier_1"]["standard_error"] > 0
        else:
            assert row["nats"]["value"] < row["nats_few"]["value"]
            assert 0 < row["probability"]["value"] < 100


def test_a_softmax_that_is_surer_of_noise_is_worse_by_both(written):
    first, second = results(written)["models"][:2]
    assert first["nats"]["value"] < second["nats"]["value"]
    assert first["brier_1"]["value"] > second["brier_1"]["value"]


def scores(nats, brier):
    """Two documents with the mean nats and Brier-n, the second of which is worse by both."""
    names = ("nats", *(f"brier_{n}" for n in range(1, 5)))
    means = torch.tensor([[nats, *[brier] * 4]], dtype=torch.float64)
    shift = torch.tensor([[0.1, *[-0.01] * 4]], dtype=torch.float64)
    sums = 100 * torch.cat([means - shift, means + shift])
    return DocumentScores(names, sums, torch.full_like(sums, 100), (0, 1), "documents").to_dict()


def rows_of(*models):
    return [
        {"kind": kind, "chunk": 1, "step": step, "scores": scores(nats, brier)}
        for kind, step, nats, brier in models
    ]


def test_correlations_are_those_of_scipy_and_1_is_agreement(told):
    models = [("softmax", 1, 6.0, 0.02), ("softmax", 2, 5.0, 0.05), ("softmax", 3, 4.0, 0.20)]
    found = told.report(rows_of(*models), resamples=20, seed=0)["correlations"]
    nats, brier = ([-one[2] for one in models], [one[3] for one in models])
    for name, theirs in (("Pearson", pearsonr), ("Spearman", spearmanr)):
        ours = found["softmax"]["brier_1"][name]
        assert ours["value"] == pytest.approx(theirs(nats, brier).statistic)
        assert ours["standard_error"] == pytest.approx(0, abs=1e-6)
    flat = told.report(rows_of(*[(*m[:3], 0.1) for m in models]), resamples=20, seed=0)
    assert flat["correlations"]["softmax"]["brier_1"]["Pearson"]["value"] is None


def test_a_model_is_compared_with_the_softmax_of_its_nats(told):
    models = [("softmax", 1, 6.0, 0.02), ("softmax", 2, 4.0, 0.10), ("head", 1, 4.5, 0.09),
              ("head", 2, 7.0, 0.01)]  # fmt: skip
    (row,) = told.report(rows_of(*models), resamples=20, seed=0)["at_equal_nats"]
    assert (row["kind"], row["step"]) == ("head", 1)
    assert row["brier_1"]["value"] == pytest.approx(9.0 - 8.0)
    # All shift alike with the documents, and so does the softmax's curve.
    assert row["brier_1"]["standard_error"] == pytest.approx(0, abs=1e-6)


def test_pairs_that_both_order_and_differently_are_named(told):
    nats, brier = np.array([0.0, 0.1, -0.1]), np.array([0.0, 0.2, -0.2])
    tables = [{"nats": a + nats, "brier_1": b + brier} for a, b in ((5, 4), (4, 6), (6, 7))]
    spread = np.array([0.0, 0.3, -0.3])
    tables.append({"nats": 5.5 + spread, "brier_1": 5.5 - brier})
    found = told.discordant([(str(n), 1, n) for n in range(4)], tables, "brier_1")
    # The first three shift alike, so that their differences have no error; those to the last
    # model do, and none of them counts twice.
    assert found["ordered"] == 0
    for n, table in enumerate(tables[:3]):
        table["nats"] = table["nats"] + np.array([0, 1e-3, -1e-3]) * n
        table["brier_1"] = table["brier_1"] + np.array([0, 1e-3, -1e-3]) * n
    found = told.discordant([(str(n), 1, n) for n in range(3)], tables[:3], "brier_1")
    assert found["ordered"] == 3
    assert found["pairs"] == [["0, step 0", "2, step 2"], ["1, step 1", "2, step 2"]]
