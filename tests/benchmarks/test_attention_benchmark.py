"""The command of the attention benchmark, with sizes that take a moment."""

import pytest
from benchmark_runs import results, run_benchmark


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    sizes = (
        "--hidden 16 --depth 2 --heads 2 --ff-size 24 --length 64 --position 8 --llama-rows 1 "
        "--llama-length 8 --rounds 2 --lengths 32 64 --training-step --step-rows 1 "
        "--step-length 8 --step-hidden 16 --step-depth 1 --step-heads 2 --step-ff-size 24 "
        "--step-latent 4 --peak-tflops 1 --compiler eager"
    )
    return run_benchmark(tmp_path_factory.mktemp("benchmark"), "attention", sizes)


def test_every_comparison_is_there(written):
    pairs = results(written)["pairs"]
    assert [row["what"] for row in pairs] == [
        "packed", "packed attention", "cache", "Llama",
    ]  # fmt: skip
    for row in pairs:
        ours, other = row["milliseconds"]["ours"], row["milliseconds"]["other"]
        assert 0.2 < row["times_faster"]["median"] * ours / other < 5
        assert row["times_faster"]["least"] <= row["times_faster"]["median"]


def test_what_could_be_gained_on_llama_is_bounded(written):
    """All of its time over that of matrix products and attention: much in so small a model."""
    rows = {row["what"]: row for row in results(written)["pairs"]}
    assert rows["Llama"]["times_faster_possible"] > 1.5
    assert "at most" in written[0]


def test_every_kernel_is_there(written):
    rows = results(written)["kernels"]
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
    step = results(written)["training step"]
    assert step["share_of_peak"] == pytest.approx(step["tflops"])
    # 2 operations a weight and position forward, 4 backward: those of the backbone alone.
    weights = 4 * 16 * 16 + 3 * 16 * 24
    least = 6 * weights * 8
    assert least < step["tflops"] * 1e12 * step["seconds"] < 100 * least


def test_the_table_is_printed(written):
    assert "times faster" in written[0]
    assert "of peak" in written[0]
