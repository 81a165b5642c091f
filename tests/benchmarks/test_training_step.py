"""The benchmark of a training step, at a size that takes a moment."""

import pytest
import torch
from benchmark_runs import results, run_benchmark

WAYS = ("published, bfloat16", "float32")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training_step")
    sizes = "--sizes tiny --rounds 2 --warm 1 --peak-sizes 64"
    return run_benchmark(folder, "training_step", sizes, "--ways", *WAYS)


def test_every_way_is_raced_against_the_published_step(written):
    printed, folder = written
    assert printed.endswith((folder / "numbers.json").read_text())
    found = results(written)
    assert found["clock"] == "processor seconds"
    assert set(found["matrix_peak_gigaflops"]) == {"float32, MKL", "float32", "bfloat16"}
    for task in ("model", "autoencoder"):
        rows = found["sizes"]["tiny"][task]["ways"]
        assert set(rows) == {"published, float32", *WAYS}
        for way in WAYS:
            row, faster = rows[way], rows[way]["times_faster"]
            assert 0 < faster["least"] <= faster["median"] <= faster["most"]
            assert row["milliseconds"] > 0 and row["megabytes"] > 0
            assert 0 < row["share_of_peak"] < 1
        operations = found["sizes"]["tiny"][task]["operations"]
        assert 0 < operations["calmkit"] < 1.1 * operations["published"]
    assert found["sizes"]["tiny"]["model"]["ways"]["float32"]["times_faster_wanted"] == 2.0


def test_parts_of_the_step_are_timed(written):
    for parts in results(written)["sizes"]["tiny"]["where"].values():
        assert {"data", "head", "rule", "backbone", "optimizer"} < set(parts)
        assert min(parts.values()) > 0


def test_tokens_repeat_as_in_books(load):
    """Of 4096 tokens of English, 1225 differ with 4,096 ids, and 1300 with 32,000."""
    store = load("training_step").zipf_text(4096, 50_000)
    parts = torch.from_numpy(store.tokens[:].astype("int64")).split(4096)
    assert len(parts[1].unique()) == pytest.approx(1100, rel=0.1)
    assert store.tokens.max() < 4096 and (store.tokens[store.offsets[:-1]] == 0).all()
