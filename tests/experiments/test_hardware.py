"""The devices of an experiment, before any process is started."""

import dataclasses
from pathlib import Path

import pytest

from calmkit.config import parse
from calmkit.experiments import fabric_of

# Two devices cannot share the autoencoder's 3 rows.
OPTIONS = ["--accelerator", "cpu", "--devices", "2", "--autoencoder_training.batch_size", "3"]


def test_the_rows_of_a_stage_that_is_trained_must_divide():
    experiment = parse(OPTIONS, command="calmkit train").experiment
    with pytest.raises(ValueError, match=r"autoencoder_training\.batch_size must be a multiple"):
        fabric_of(experiment)


def test_a_named_autoencoder_is_not_trained():
    experiment = parse(OPTIONS, command="calmkit train").experiment
    named = dataclasses.replace(experiment, autoencoder_from=Path("saved"))
    assert fabric_of(named).world_size == 2


@pytest.mark.parametrize("devices, refused", [("1", True), ("2", False), ("4", True)])
def test_devices_are_the_processes_of_torchrun(monkeypatch, devices, refused):
    """Otherwise each process would train the whole model, or some devices would be missing."""
    started = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
               "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"}  # fmt: skip
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    experiment = parse(
        ["--accelerator", "cpu", "--devices", devices], command="calmkit train"
    ).experiment
    if refused:
        with pytest.raises(ValueError, match=rf"must be 2, .* torchrun .*; got {devices} \* 1"):
            fabric_of(experiment)
    else:
        assert fabric_of(experiment).world_size == 2
