"""Decisions of several processes: what one of them finds wrong is told to all."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calmkit.disk import WriteError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["any_of", "first_writes"]


def first_writes(fabric: "Fabric", write: Callable[[], object]) -> None:
    """Let the first process write something, while the others wait for its success.

    Args:
        fabric: Connects the processes, each of which must call this function.
        write: What the first process does.

    Raises:
        WriteError: In every process, if the first could not write.
        ValueError: In the first process, if `write` raises one; a WriteError in the others.
    """
    failure: WriteError | ValueError | None = None
    if fabric.is_global_zero:
        try:
            write()
        except (WriteError, ValueError) as error:
            failure = error
    told = fabric.broadcast("" if failure is None else str(failure))
    if failure is not None:
        raise failure
    if told:
        raise WriteError(told)


def any_of(fabric: "Fabric", flags: Tensor) -> Tensor:
    """Whether each flag is set in any process."""
    if fabric.world_size == 1:
        return flags
    total = fabric.all_reduce(flags.to(fabric.device, torch.float32), reduce_op="sum")
    return torch.as_tensor(total) > 0
