"""The command of the attention benchmark, with sizes that take a moment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    file = tmp_path_factory.mktemp("benchmark") / "attention.json"
    sizes = (
        "--hidden 16 --depth 2 --heads 2 --ff-size 24 --length 64 --position 8 --llama-rows 1 "
        "--llama-length 8 --rounds 2 --lengths 32 64 --training-step --step-rows 1 "
        "--step-length 8 --step-hidden 16 --step-depth 1 --step-heads 2 --step-ff-size 24 "
        "--step-latent 4 --peak-tflops 1 --compiler eager"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, BENCHMARKS / "attention.py", *sizes.split(), "--json", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text(encoding="utf-8")), done.stdout


def test_every_comparison_is_there(written):
    results = written[0]["results"]
    assert [row["what"] for row in results["pairs"]] == [
        "packed", "packed attention", "cache", "Llama",
    ]  # fmt: skip
    for row in results["pairs"]:
        ours, other = row["milliseconds"]["ours"], row["milliseconds"]["other"]
        assert 0.2 < row["times_faster"]["median"] * ours / other < 5
        assert row["times_faster"]["least"] <= row["times_faster"]["median"]


def test_what_could_be_gained_on_llama_is_bounded(written):
    """All of its time over that of matrix products and attention: much in so small a model."""
    rows = {row["what"]: row for row in written[0]["results"]["pairs"]}
    assert rows["Llama"]["times_faster_possible"] > 1.5
    assert "at most" in written[1]


def test_every_kernel_is_there(written):
    rows = written[0]["results"]["kernels"]
    assert [(row["length"], row["mask"], row["backend"]) for row in rows] == [
        (length, mask, backend)
        for length in (32, 64)
        for mask in ("causal", "packed")
        for backend in ("sdpa", "dense mask")
    ]
    # A mask of bools and the scores behind it are there only where it is written out.
    memory = {(row["length"], row["mask"], row["backend"]): row["megabytes"] for row in rows}
    assert memory[64, "packed", "sdpa"] < memory[64, "packed", "dense mask"]


def test_the_share_of_the_peak_is_operations_over_time(written):
    step = written[0]["results"]["training step"]
    assert step["share_of_peak"] == pytest.approx(step["tflops"])
    # 2 operations a weight and position forward, 4 backward: those of the backbone alone.
    weights = 4 * 16 * 16 + 3 * 16 * 24
    least = 6 * weights * 8
    assert least < step["tflops"] * 1e12 * step["seconds"] < 100 * least


def test_the_table_is_printed(written):
    assert "times faster" in written[1]
    assert "of peak" in written[1]
