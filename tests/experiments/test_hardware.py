"""The devices of a training: which processes there must be, and how batches are divided."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from train_configs import train

from calmkit.experiments import fabric_of

LAUNCHERS = ("MASTER_ADDR", "TORCHELASTIC_", "SLURM_")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No process has been started by anybody."""
    for name in os.environ:
        if name.startswith(LAUNCHERS):
            monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch):
    """Sets what torchrun or srun tells the second of its processes."""

    def by(launcher, count):
        torchrun = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": count, "RANK": 1, "LOCAL_RANK": 1,
                    "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": 29500}  # fmt: skip
        srun = {"SLURM_NTASKS": count, "SLURM_NTASKS_PER_NODE": count, "SLURM_PROCID": 1,
                "SLURM_STEP_NUM_TASKS": count, "SLURM_LOCALID": 1, "SLURM_NODEID": 0}  # fmt: skip
        for name, value in (torchrun if launcher == "torchrun" else srun).items():
            monkeypatch.setenv(name, str(value))

    return by


def devices(*options):
    """The devices of a small training on the CPU."""
    return fabric_of(train("--accelerator", "cpu", *options).experiment)


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
def test_as_many_processes_as_devices(started, launcher):
    """One that trained the whole model beside the others would write over their results."""
    started(launcher, 2)
    assert devices("--devices", "2").world_size == 2
    for given, product in (
        ((), "1 * 1"), (("--devices", "4"), "4 * 1"),
        (("--devices", "2", "--num_nodes", "2"), "2 * 2"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"must be 2, .* {launcher} has started") as caught:
            devices(*given)
        assert f"got {product}." in str(caught.value)


def test_a_job_of_slurm_may_run_the_command_without_srun(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    assert devices().world_size == 1


def test_other_machines_must_be_known(monkeypatch):
    """The first would wait for them until it gives up, after half an hour."""
    with pytest.raises(ValueError, match=r"num_nodes must be 1 unless .*; got 2\. Start"):
        devices("--num_nodes", "2")
    assert devices("--num_nodes", "2", "--dry_run", "true").world_size == 2
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert devices("--num_nodes", "2").world_size == 2


def test_only_trainings_that_take_place_are_divided():
    """With a named autoencoder there is none of its own."""
    odd = ("--devices", "2", "--autoencoder_training.batch_size", "3")
    with pytest.raises(ValueError, match=r"autoencoder_training\.batch_size must be a multiple"):
        devices(*odd)
    experiment = train("--accelerator", "cpu", *odd).experiment
    assert fabric_of(replace(experiment, autoencoder_from=Path("base"))).world_size == 2
