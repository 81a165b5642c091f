"""The race at equal time, for a moment; every row is scored in one space."""

import argparse

import numpy as np
import pytest
import torch
from benchmark_runs import results, run_benchmark
from prepared_folders import write_prepared
from torch.testing import assert_close

NAMES = ("published, 0.003", "bfloat16")
OPTIONS = {
    "chunk": 2, "positions": 20, "rows": 2, "latent": 6, "hidden": 16, "depth": 1, "heads": 2,
    "head_depth": 1, "warmup": 2, "autoencoder_steps": 10, "evaluation_rows": 4, "draws": 2,
    "context": 4, "seed": 0, "seconds": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A prepared folder of random tokens."""
    numbers = np.random.default_rng(0)
    documents = [np.r_[7, numbers.integers(20, size=300), 7] for _ in range(8)]
    folder = tmp_path_factory.mktemp("text") / "prepared"
    write_prepared(
        folder, train=documents[:5], validation=documents[5:], shard_tokens=10_000, vocab_size=20
    )
    return folder


def test_contenders_are_trained_for_equal_time_and_scored(text, tmp_path):
    sizes = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in OPTIONS.items())
    written = run_benchmark(tmp_path, "equal_time", sizes, "--data", text, "--contenders", *NAMES)
    found = results(written)["contenders"]
    assert tuple(found) == NAMES
    for name in NAMES:
        assert name in written[0] and found[name]["steps"] > 2
        assert found[name]["energy_score"]["value"] > 0
        assert -100 < found[name]["brier_1"]["value"] < 100
        assert found[name]["brier_1"]["standard_error"] >= 0  # 0 if no draw is right


def test_folding_a_head_into_another_space_changes_no_sample(text, load):
    race = load("equal_time").Race(argparse.Namespace(data=text, **OPTIONS))
    torch.manual_seed(1)
    model = race.new_model(race.autoencoder)
    folded = race.in_standard_space(model)
    cond, noise = torch.randn(3, 16), torch.rand(5, 3, 64) - 0.5
    with torch.no_grad():
        raw, standard = (part.head.sample_from(cond, noise) for part in (model, folded))
    assert not torch.allclose(raw, standard, atol=0.1)
    assert_close(standard * race.standardized.scale + race.standardized.shift, raw)
    assert_close(folded.autoencoder.decode(standard), model.autoencoder.decode(raw))
