"""The evaluation benchmark: its loops score as `evaluate` does, and it runs through."""

import json

import pytest
import torch

from calmkit.autoencoders import MLPAutoencoder
from calmkit.evaluation import EvaluationSettings, evaluate
from calmkit.heads import GaussianHead


@pytest.fixture
def benchmark(load):
    return load("evaluation")


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
@pytest.mark.parametrize("loop", ["plain_loop", "cached_loop"])
def test_loops_score_as_evaluate_does(benchmark, loop, chunk_size):
    """With a head that hardly spreads, all draws are the same from any generator."""
    torch.manual_seed(chunk_size)
    model = benchmark.build_model(MLPAutoencoder(chunk_size, 4, 6, width=8), 8, 1)
    model.head = GaussianHead(8, 6, width=8, depth=1, std=1e-6)
    for parameter in model.head.parameters():
        parameter.data.normal_()
    model.requires_grad_(False).eval()
    rows = benchmark.rows_of(torch.randint(4, (3, 7, chunk_size)))
    settings = EvaluationSettings(rows=3, draws=2, min_context=3, bootstrap=10)
    want = [b.value for b in evaluate(model, rows, settings, seed=0).brier.brier]
    got = getattr(benchmark, loop)(model, rows, settings, torch.Generator())
    assert got == pytest.approx(want)
    assert -100 < want[0] < 100, "some draws must hit"


def test_measures_speed_and_spread(benchmark, tmp_path, capsys):
    """Fewer redraws, rows and steps than by default; 8 draws vary less than 2."""
    path = tmp_path / "found.json"
    threads = torch.get_num_threads()
    benchmark.main([
        "--positions", "6", "--context", "2", "--hidden", "8", "--depth", "1", "--vocab", "9",
        "--rounds", "1", "--chunks", "2", "--steps", "5", "--spread-rows", "4", "--redraws", "8",
        "--autoencoder-steps", "20",
        "--json", str(path),
    ])  # fmt: skip
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    found = json.loads(path.read_text())["results"]
    assert printed.endswith(path.read_text())
    (speed,) = found["speed"]
    assert set(speed["seconds"]) == {"evaluate", "plain loop", "cached loop"}
    assert speed["times_evaluate"]["evaluate"] == 1
    (spread,) = found["spread"]
    assert spread["chunk"] == 2 and "K = 2, Brier-4" in printed
    for few, many, ratio in zip(
        spread["2_draws"], spread["8_draws"], spread["sd_ratio"], strict=True
    ):
        assert ratio == pytest.approx(many["sd"] / few["sd"])
    assert spread["sd_ratio"][0] < 1
