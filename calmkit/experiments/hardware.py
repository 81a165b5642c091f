"""The devices of a run, and its number of CPU threads.

The number of threads changes the order of sums and thus their rounding. All runs of a comparison
therefore have the same number of threads, in parallel or one after another.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from calmkit.cluster import fully_sharded, launched, share_of
from calmkit.config import Comparison, TrainExperiment, check_device
from calmkit.devices import check_compiler, compiled_blocks, fast_products
from calmkit.extras import load_fabric

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "at_speed",
    "describe_hardware",
    "fabric_of",
    "new_fabric",
    "threads_of_a_run",
    "with_threads",
]


def new_fabric(accelerator: str, precision: str = "32-true") -> "Fabric":
    """A `Fabric` with one device.

    Args:
        accelerator: `auto` for the fastest device, or `cpu`, `cuda` or `mps`.
        precision: Number format of the computation.
    """
    return load_fabric("a device").Fabric(accelerator=accelerator, devices=1, precision=precision)


def fabric_of(experiment: TrainExperiment) -> "Fabric":
    """The devices that an experiment is trained on; `launch` of the result starts its processes.

    Processes that `torchrun` or SLURM has started are recognised by their environment.

    Raises:
        ConfigError: If the machine has no such device, or fewer of them.
        ValueError: If a batch cannot be divided evenly among the devices, a launcher has started
            more or fewer processes than there are devices, or nobody has said where the other
            machines are.
    """
    check_device(experiment.accelerator, experiment.devices)
    lightning = load_fabric("training")
    processes = launched()
    fabric = lightning.Fabric(
        accelerator=experiment.accelerator,
        devices=experiment.devices,
        num_nodes=experiment.num_nodes,
        strategy=fully_sharded() if experiment.strategy == "fsdp" else experiment.strategy,
        precision=experiment.precision,
    )
    if processes is not None:
        processes.check(getattr(fabric.strategy, "num_processes", 1), experiment.num_nodes)
    _check_machines(fabric, experiment)
    trained = ["training"]
    given = experiment.finetune or experiment.autoencoder_from
    if experiment.model == "calm" and given is None:
        trained.append("autoencoder_training")
    for key in trained:
        settings = getattr(experiment, key)
        share_of(
            settings.batch_size,
            settings.micro_batch,
            processes=fabric.world_size,
            name=f"{key}.batch_size",
        )
    return fabric


def _check_machines(fabric: "Fabric", experiment: TrainExperiment) -> None:
    """Refuse other machines that the process would wait for without knowing where they are."""
    from lightning_fabric.plugins.environments import LightningEnvironment

    environment = getattr(fabric.strategy, "cluster_environment", None)
    alone = isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ
    if experiment.num_nodes > 1 and alone and not experiment.dry_run:
        raise ValueError(
            "num_nodes must be 1 unless the environment says where the other machines are; got "
            f"{experiment.num_nodes}. Start the command with torchrun or srun on each of them."
        )


@contextlib.contextmanager
def at_speed(module: nn.Module, fabric: "Fabric", *, compiled: bool) -> Iterator[None]:
    """Train a module inside the context with the fastest products, and compiled if wanted.

    Raises:
        ValueError: If it is to be compiled for a CPU, without a C++ compiler.
    """
    if compiled:
        check_compiler(fabric.device)
    with fast_products(fabric.device), compiled_blocks(module, when=compiled):
        yield


def threads_of_a_run(comparison: Comparison) -> int:
    """Threads per run: as in the comparison, or an equal share of this process's threads."""
    share = max(1, torch.get_num_threads() // comparison.processes)
    return share if comparison.threads is None else comparison.threads


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_hardware(device: torch.device) -> str:
    """Describe the device and, for a CPU, the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
