"""Bytes that are encoded, as megabytes with a time."""

import logging

import pytest

from calmkit.experiments import Silent, bytes_encoded
from calmkit.training import Progress


class Recorded:
    def __init__(self):
        self.seen = []

    def note(self, text):
        raise AssertionError(text)

    def track(self, label):
        self.seen.append(label)
        return self.seen.append


@pytest.mark.parametrize("total", [40_000, 1_000_000, 2_500_000])
def test_at_the_end_it_is_the_time_it_took_however_small_the_text(monkeypatch, total):
    clock = iter([10.0, 10.0, 13.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    display = Recorded()
    progress = bytes_encoded(display)
    progress(0, total)
    progress(total, total)
    label, _, end = display.seen
    assert label == "encoding, MB"
    assert end.loss is None
    assert end.step == end.steps and abs(end.steps * end.seconds_per_step - 3.0) < 1e-9


def test_the_time_left_is_that_of_the_bytes_left_at_the_speed_since_the_start(monkeypatch):
    clock = iter([10.0, 10.0, 14.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    display = Recorded()
    progress = bytes_encoded(display)
    progress(50_000_000, 100_000_000)  # a run that goes on
    progress(60_000_000, 100_000_000)  # 10 MB in 4 s
    assert (display.seen[-1].step, display.seen[-1].steps) == (60, 100)
    assert abs(display.seen[-1].seconds_left - 16.0) < 1e-9


def test_what_is_not_shown_is_logged(caplog, capfd):
    caplog.set_level(logging.INFO, "calmkit")
    silent = Silent()
    silent.note("100% of it")
    show = silent.track("model")
    for step in (1, 2):
        show(Progress(step, 2, 0.5, 1.0))
    silent.track("encoding, MB")(Progress(1, 1, None, 1.0))
    assert caplog.record_tuples == [
        ("calmkit.experiments", logging.INFO, "100% of it"),
        ("calmkit.experiments", logging.INFO, "model ..."),
        ("calmkit.experiments", logging.INFO, "model: 2 steps, loss 0.5"),
        ("calmkit.experiments", logging.INFO, "encoding, MB ..."),
        ("calmkit.experiments", logging.INFO, "encoding, MB: 1 steps"),
    ]
    assert capfd.readouterr() == ("", "")
