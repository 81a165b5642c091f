"""The processes that a launcher has started: `torchrun`, or SLURM by `srun`.

Each of them runs the whole command. If they do not expect as many processes as there are, they
train the same model several times over, in one folder, or on fewer devices than was asked for.
"""

import os
from dataclasses import dataclass

__all__ = ["Launched", "launched"]


@dataclass(frozen=True)
class Launched:
    """The processes of a launcher.

    Attributes:
        launcher: What has started them.
        processes: Their number, on all machines.
        nodes: Number of machines.
    """

    launcher: str
    processes: int
    nodes: int

    def check(self, devices: int, num_nodes: int) -> None:
        """Compare with the devices of a training, each of which needs a process.

        Args:
            devices: Devices of each machine.
            num_nodes: Machines.

        Raises:
            ValueError: If there are more or fewer devices than processes.
        """
        if devices * num_nodes != self.processes:
            raise ValueError(
                f"devices * num_nodes must be {self.processes}, the number of processes that "
                f"{self.launcher} has started; got {devices} * {num_nodes}. Set devices to "
                f"{self.processes // self.nodes} and num_nodes to {self.nodes}, or start one "
                "process for each device."
            )


def launched() -> Launched | None:
    """The processes that `torchrun` or `srun` has started; None if this one stands alone.

    Raises:
        ValueError: If a job of SLURM has several tasks, but no number of them for each machine,
            which Lightning Fabric needs.
    """
    from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        processes, local = (int(os.environ[n]) for n in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        return Launched("torchrun", processes, processes // local)
    if not SLURMEnvironment.detect():
        return None
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise ValueError(
            f"--ntasks-per-node must be given to SLURM for several tasks; got --ntasks={tasks} "
            "alone. Give one task for each device."
        )
    if (started := os.environ.get("SLURM_STEP_NUM_TASKS")) is None:  # a job's script, without srun
        return None
    return Launched("srun", int(started), int(os.environ.get("SLURM_STEP_NUM_NODES", "1")))
