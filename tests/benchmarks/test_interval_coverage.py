"""The benchmark of intervals: worlds have the mean they promise, and it runs through."""

import json

import pytest
import torch


@pytest.fixture
def benchmark(load):
    return load("interval_coverage")


def test_the_truth_is_the_mean_of_each_world(benchmark):
    generator = torch.Generator().manual_seed(0)
    counts = benchmark.draw_counts(400, 500, 0.7, generator)
    assert float(counts.mean()) == pytest.approx(benchmark.TOKENS, rel=0.02)
    for draw, truth in benchmark.WORLDS.values():
        sums = draw(counts, generator)
        assert float(sums.sum() / counts.sum()) == pytest.approx(truth, rel=0.03)


def test_bootstrap_t_as_a_loop(benchmark):
    sums, counts = torch.tensor([3.0, 1.0, 7.0, 2.0]), torch.tensor([4.0, 3.0, 8.0, 5.0])
    found = benchmark.intervals_of(sums[:, None], counts[:, None], resamples=200, seed=3)

    def estimate(chosen):
        s, c = sums[chosen], counts[chosen]
        ratio = s.sum() / c.sum()
        return ratio, ((s - ratio * c) ** 2).sum().sqrt() / c.sum()

    value, error = estimate([0, 1, 2, 3])
    generator = torch.Generator().manual_seed(3)
    distances = []
    for chosen in torch.randint(4, (200, 4), generator=generator):
        ratio, own = estimate(chosen)
        if own > 1e-6:
            distances.append((ratio - value) / own)
    low, high = torch.stack(distances).quantile(torch.tensor([0.025, 0.975]))
    want = torch.stack([value - high * error, value - low * error])
    torch.testing.assert_close(torch.cat(found["bootstrap t"]), want)


def test_runs_through(benchmark, capsys, tmp_path):
    file = tmp_path / "coverage.json"
    options = "--documents 2 8 --seeds 2 --experiments 80 --resamples 50"
    benchmark.main([*options.split(), "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert len(results["ratios"]) == len(benchmark.WORLDS) * len(benchmark.LENGTHS) * 2
    for row in results["ratios"]:
        assert row["coverage"]["percentiles"] < row["coverage"]["calmkit"] + 0.2
    assert {"differences", "brier_lm", "seeds", "rows"} < results.keys()
    assert "brier_lm: coverage in per cent" in capsys.readouterr().out
