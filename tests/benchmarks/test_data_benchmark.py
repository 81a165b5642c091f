"""The data benchmark runs through, and its simulated store is one."""

import importlib
import json
from pathlib import Path

import pytest

from calmkit.data import TrainingBatches

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("data")


def test_simulated_text_has_its_documents(benchmark):
    store = benchmark.simulated(10**9, 1000)
    assert (store.num_documents, store.num_tokens) == (10**6, 10**9)
    batch = TrainingBatches(store, chunk_size=4, positions=512, batch_size=4, seed=0).batch_at(0)
    for lengths in batch.lengths:
        # Two borders or three in 2,048 tokens; a chunk more for padding at most.
        assert 3 <= len(lengths) <= 4
        assert all(250 <= length <= 251 for length in lengths[1:-1])


def test_measures_all_but_starts(benchmark, tmp_path, monkeypatch, capsys):
    lines = [json.dumps({"text": f"Line {n} of a text. " * (50 + n % 9)}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    monkeypatch.setitem(benchmark.BATCH, "positions", 16)
    path = tmp_path / "found.json"
    benchmark.main([
        str(tmp_path / "text.jsonl"), "--vocab=300", "--rounds=3", "--starts=0",
        "--simulated=1000000", "--in-memory=100000", "--json", str(path),
    ])  # fmt: skip
    found = json.loads(path.read_text())["results"]
    assert capsys.readouterr().out.endswith(path.read_text())
    assert 0 < found["preparing"]["share"]
    assert set(found["milliseconds a batch"]) == {
        "prepared folder", "documents of 1000 tokens", "documents of 200 tokens",
    }  # fmt: skip
    assert all(one["least"] <= one["median"] for one in found["milliseconds a batch"].values())
    assert len(found["seconds until ready"]) == 2
