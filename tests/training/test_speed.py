"""Tokens per second and the share of the peak, alone and in a run."""

import csv

import pytest
from training_problems import Toy, batch_at, objective

from calmkit.training import Speed, TrainingSettings, fit
from calmkit.training.speed import Speedometer


def test_the_mean_of_the_last_steps():
    meter = Speedometer(tokens=600, flops=3e9, peak=1e10, steps=2)
    assert meter.add(2.0) == Speed(300.0, pytest.approx(0.15))
    assert meter.add(4.0) == Speed(200.0, pytest.approx(0.1))
    assert meter.add(6.0) == Speed(120.0, pytest.approx(0.06))  # the first is forgotten


@pytest.mark.parametrize(("flops", "peak"), [(None, 1e10), (3e9, None)])
def test_without_a_peak_only_tokens_are_known(flops, peak):
    speed = Speedometer(tokens=600, flops=flops, peak=peak, steps=2).add(2.0)
    assert speed == Speed(300.0, None)
    assert speed.to_log() == {"speed/tokens_per_second": 300.0}


def run(directory, **options):
    told = []
    settings = TrainingSettings(steps=4, warmup_steps=0, log_every=2)
    result = fit(
        Toy(), objective, batch_at, settings=settings, seed=0, directory=directory,
        progress=told.append, **options,
    )  # fmt: skip
    with next((directory / "logs").rglob("metrics.csv")).open() as file:
        return result, told, list(csv.DictReader(file))


def test_a_run_tells_and_logs_its_speed(monkeypatch, tmp_path):
    monkeypatch.setattr("calmkit.training.loop.matrix_peak", lambda device, mixed: 1e12)
    result, told, rows = run(tmp_path, flops_per_step=1e6)
    assert all(0 < one.speed.share_of_peak < 1 for one in told)
    # The log's points are those of steps 2 and 4, each over the steps since the one before.
    for row, one in zip(rows, told[1::2], strict=True):
        assert float(row["speed/tokens_per_second"]) == one.speed.tokens_per_second
        assert float(row["speed/share_of_peak"]) == one.speed.share_of_peak
        assert float(row["speed/seconds_left"]) == one.seconds_left
    assert told[1].seconds_left > told[3].seconds_left == 0
    tokens = batch_at(0).tokens.numel()
    seconds = [2 * tokens / float(row["speed/tokens_per_second"]) for row in rows]
    assert sum(seconds) == pytest.approx(result.seconds)
    # Both are of the same seconds: tokens and FLOPs of a step in proportion.
    for one in told:
        ratio = one.speed.share_of_peak / one.speed.tokens_per_second
        assert ratio == pytest.approx(1e6 / 1e12 / tokens)


def test_no_peak_is_measured_without_flops(monkeypatch, tmp_path):
    monkeypatch.setattr("calmkit.training.loop.matrix_peak", None)
    _, told, rows = run(tmp_path)
    assert {one.speed.share_of_peak for one in told} == {None}
    assert "speed/share_of_peak" not in rows[0]
