import pytest

from calmkit.cluster import launched
from calmkit.cluster.launchers import Launched

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
JOB = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}
SLURM = JOB | {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in [*TORCHRUN, *SLURM, "SLURM_JOB_NAME"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "environment, found",
    [
        ({}, None),
        (TORCHRUN, Launched("torchrun", 16, 2)),
        (SLURM, Launched("srun", 8, 2)),
        (JOB, None),
        (TORCHRUN | SLURM, Launched("torchrun", 16, 2)),  # torchrun in a job of SLURM
        (SLURM | {"SLURM_JOB_NAME": "interactive"}, None),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, Launched("srun", 1, 1)),
    ],
)
def test_processes_are_found(monkeypatch, environment, found):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == found


def test_tasks_of_slurm_are_counted_by_machine(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "8")
    with pytest.raises(ValueError, match=r"--ntasks-per-node must be given .* got --ntasks=8 al"):
        launched()


@pytest.mark.parametrize("devices, num_nodes", [(1, 1), (8, 1), (8, 4)])
def test_each_device_has_a_process(devices, num_nodes):
    Launched("torchrun", 16, 2).check(8, 2)
    said = rf"must be 16, .* that torchrun has started; got {devices} \* {num_nodes}\. Set devic"
    with pytest.raises(ValueError, match=said + "es to 8 and num_nodes to 2, or"):
        Launched("torchrun", 16, 2).check(devices, num_nodes)
