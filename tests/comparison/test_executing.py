"""What each run computes on, alone or beside others."""

import os
from pathlib import Path

import pytest
import torch

from calmkit.comparison import executing
from calmkit.comparison.executing import run_all
from calmkit.comparison.planned_runs import PlannedRun
from calmkit.comparison.results import Failure
from calmkit.config import ConfigError, parse_comparison
from calmkit.experiments.hardware import describe_hardware, threads_of_a_run, with_threads


def planned(variant, autoencoder="x", training="1"):
    return PlannedRun(
        variant=variant, text="", seed=0, steps=1, key="", training=training,
        autoencoder=autoencoder, code={}, saves=False, output=Path(), trained=Path(),
    )  # fmt: skip


class Notes:
    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


class TestThreads:
    @pytest.mark.parametrize(
        ("options", "threads"),
        [([], 4), (["--processes=2"], 2), (["--processes=3"], 1), (["--processes=9"], 1),
         (["--threads=3"], 3), (["--threads=3", "--processes=2"], 3)],
    )  # fmt: skip
    def test_are_an_equal_share_or_as_asked(self, options, threads):
        comparison = parse_comparison(["--config=ci", *options])
        with with_threads(4):
            assert threads_of_a_run(comparison) == threads
        assert torch.get_num_threads() == 1

    def test_zero_is_refused(self):
        with pytest.raises(ConfigError, match="threads must be a whole number of at least 1"):
            parse_comparison(["--config=ci", "--threads=0"])

    def test_a_run_that_is_alone_in_its_wave_has_as_many_as_the_others(self, monkeypatch):
        seen = []
        monkeypatch.setattr(
            executing, "do_run", lambda run, display: seen.append(torch.get_num_threads())
        )
        with with_threads(4):
            run_all([planned("a")], processes=2, threads=2, display=Notes())
            assert torch.get_num_threads() == 4
        assert seen == [2]

    def test_what_a_run_had_is_told(self):
        with with_threads(2):
            told = describe_hardware(torch.device("cpu"))
        assert told.endswith(f" CPU, 2 of {os.cpu_count()} threads")


class TestPlaces:
    @pytest.mark.parametrize(
        ("visible", "devices"), [(None, ["0", "1"]), ("4,7", ["4", "7"]), ("GPU-a", ["GPU-a"])]
    )
    def test_devices_are_those_that_are_visible(self, monkeypatch, visible, devices):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(devices))
        assert executing._devices() == devices

    def test_a_worker_takes_one_of_them_and_its_threads(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        with with_threads(1):
            executing._take_place(3, threads=2, devices=["4", "7"])
            assert torch.get_num_threads() == 2
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_a_run_whose_process_died_has_failed(monkeypatch):
    class Pool:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def do(self, wave):
            yield wave[0], None
            yield wave[1], executing.Died("its process was ended by SIGKILL")

    monkeypatch.setattr(executing, "Pool", Pool)
    notes = Notes()
    runs = [planned("a"), planned("b", autoencoder="y", training="2")]
    failures = run_all(runs, processes=2, threads=1, display=notes)
    reason = "its process was ended by SIGKILL"
    assert failures == {("b", 0): Failure(seed=0, reason=reason)}
    assert notes.said == ["a, seed 0: done.", f"b, seed 0: failed. {reason}"]
