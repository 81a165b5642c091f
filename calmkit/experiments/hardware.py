"""What a run computes on: its device, and how many threads it has on a CPU.

Sums that are taken in another order round otherwise. So all runs of a comparison have the same
number of threads, whether they are done side by side or one after another.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from calmkit.config import Comparison

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["describe_hardware", "new_fabric", "threads_of_a_run", "with_threads"]


def new_fabric(accelerator: str, precision: str = "32-true") -> "Fabric":
    """One device to compute on.

    Args:
        accelerator: `auto`, the fastest there is, or `cpu`, `cuda` or `mps`.
        precision: Number format of the computation.
    """
    from lightning_fabric import Fabric

    return Fabric(accelerator=accelerator, devices=1, precision=precision)  # pyrefly: ignore


def threads_of_a_run(comparison: Comparison) -> int:
    """As the comparison says, or the share of each process in this one's threads."""
    share = max(1, torch.get_num_threads() // comparison.processes)
    return share if comparison.threads is None else comparison.threads


@contextlib.contextmanager
def with_threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe_hardware(device: torch.device) -> str:
    """The device, and this process's threads where it is a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} of {os.cpu_count()} threads"
