"""Which runs of a comparison are timed, with stored results and models that cost nothing."""

import contextlib
import dataclasses
import types

import pytest
import sample_results as samples

from calmkit.comparison import timing
from calmkit.evaluation import Timing
from calmkit.experiments.run_record import RunRecord

FOUND = Timing(median=3.0, spread=0.5, repeats=7)


@pytest.fixture
def stored(monkeypatch, tmp_path):
    """Records by run; timing one writes it here."""
    found = {}

    def trained(run, display):
        training = types.SimpleNamespace(averaged=contextlib.nullcontext)
        return types.SimpleNamespace(plan=run), run.variant, training

    def time_generation(model, plan):
        if model == "broken":
            raise RuntimeError("out of memory")
        return FOUND

    monkeypatch.setattr(timing, "read_record", lambda run: found.get((run.variant, run.seed)))
    monkeypatch.setattr(
        timing, "keep", lambda run, record: found.update({(run.variant, run.seed): record})
    )
    monkeypatch.setattr(timing, "trained_model", trained)
    monkeypatch.setattr(timing, "time_generation", time_generation)
    return found


def run(variant, seed, folder):
    return types.SimpleNamespace(variant=variant, seed=seed, training_folder=folder)


def record(time=None):
    result = dataclasses.replace(samples.run(), microseconds_per_token=time)
    return RunRecord("EnergyHead", 10, 5, result, "none")


def times(stored):
    return {key: one.result.microseconds_per_token for key, one in stored.items()}


def test_the_first_finished_run_of_each_variant_is_timed(stored, tmp_path):
    stored |= {("a", 0): record(), ("a", 1): record(), ("b", 1): record()}
    runs = [run(name, seed, tmp_path) for name in "ab" for seed in (0, 1)]
    told = samples.Told()
    timing.time_variants(runs, threads=1, display=told)
    assert times(stored) == {("a", 0): FOUND, ("a", 1): None, ("b", 1): FOUND}
    assert told.lines == ["a: timing its generation ...", "b: timing its generation ..."]


def test_a_variant_that_has_a_time_is_not_timed_again(stored, tmp_path):
    """Its first run may have failed before, and been repeated since."""
    known = Timing(median=9.0, spread=0.1, repeats=5)
    stored |= {("a", 0): record(), ("a", 1): record(known)}
    timing.time_variants(
        [run("a", seed, tmp_path) for seed in (0, 1)], threads=1, display=samples.Told()
    )
    assert times(stored) == {("a", 0): None, ("a", 1): known}


def test_what_cannot_be_timed_is_reported_and_the_rest_go_on(stored, tmp_path):
    stored |= {(name, 0): record() for name in ("broken", "gone", "good")}
    folders = {"broken": tmp_path, "gone": tmp_path / "gone", "good": tmp_path}
    told = samples.Told()
    timing.time_variants(
        [run(name, 0, folder) for name, folder in folders.items()], threads=1, display=told
    )
    assert times(stored) == {("broken", 0): None, ("gone", 0): None, ("good", 0): FOUND}
    assert "broken: not timed. RuntimeError: out of memory" in told.lines
    assert f"gone: not timed, since {tmp_path / 'gone'} is gone." in told.lines
