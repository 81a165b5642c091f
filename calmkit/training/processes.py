r"""One step on several processes: whose rows, what weight, whose mean.

Each process takes every R-th row of the step's batch, and one share may hold much more to score
than another. The loss of the step is the mean over all that is scored in any of them,

    L = sum_r n_r L_r / sum_r n_r,

with L_r the mean of process r over its n_r things. Gradients are averaged over the R processes, so
each minimises w_r L_r with the weight w_r = R n_r / sum_r n_r. Alone, a process has the weight 1.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calmkit.chunking import ChunkBatch
from calmkit.finite import NonFiniteError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Caller", "mean_over_processes", "rows_of_process", "weight_of", "weighted"]

_Parts = tuple[dict[str, Tensor], Tensor | float]


class Caller(nn.Module):
    """Sends any call through a `forward`, where Fabric sets precision and syncs gradients.

    The call is one opaque function: Fabric would try to rebuild a batch to convert its numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[nn.Module], _Parts]) -> _Parts:
        """Call it with the module."""
        return call(self.module)


def rows_of_process(batch: ChunkBatch, fabric: "Fabric") -> ChunkBatch:
    """Every n-th row of a batch, from this process's number on, on its device.

    Args:
        batch: The whole step's.
        fabric: Tells which process this is, and of how many.

    Raises:
        ValueError: If the rows cannot be shared out evenly.
    """
    processes = fabric.world_size
    if batch.tokens.shape[0] % processes:
        raise ValueError(
            f"batch_at must give a multiple of {processes} rows, one share for each process; "
            f"got {batch.tokens.shape[0]}."
        )
    if processes > 1:
        batch = batch.rows(slice(fabric.global_rank, None, processes))
    return batch if batch.tokens.device == fabric.device else batch.to(fabric.device)


def weight_of(count: Tensor | float, fabric: "Fabric") -> Tensor:
    """This process's weight in the step.

    Args:
        count: How many things its means are over; NaN tells the others that there are none.
        fabric: Reaches the other processes, each of which must call this.

    Raises:
        NonFiniteError: If another process gave NaN.
    """
    mine = torch.as_tensor(count, device=fabric.device)
    if fabric.world_size == 1:
        return (mine != 0).float()
    mine = mine.double()
    total = torch.as_tensor(fabric.all_reduce(mine.clone(), reduce_op="sum"))
    # On the CPU alone, where reading a value is free and where NaN is looked for beforehand.
    if total.device.type == "cpu" and total.isnan() and not mine.isnan():
        raise NonFiniteError("another process met a value that is not finite, and says which.")
    return torch.where(mine == 0, 0.0, mine * fabric.world_size / total)


def weighted(value: Tensor, weight: Tensor) -> Tensor:
    """`weight * value`; where the weight is 0, it is 0 with a gradient of 0, whatever the value.

    Args:
        value: Any values.
        weight: At least 0, broadcast to the values.
    """
    return torch.where(weight == 0, torch.zeros_like(value), value * weight.to(value.dtype))


def mean_over_processes(
    values: Mapping[str, Tensor], weight: Tensor, fabric: "Fabric"
) -> dict[str, float]:
    """Scalars of all processes as one, read from the device.

    Args:
        values: This process's means; the same names in each.
        weight: From `weight_of`.
        fabric: Reaches the other processes.
    """
    detached = {name: value.detach() for name, value in values.items()}
    if fabric.world_size == 1:
        return {name: float(weighted(value, weight)) for name, value in detached.items()}
    stacked = weighted(torch.stack([value.double() for value in detached.values()]), weight)
    mean = torch.as_tensor(fabric.all_reduce(stacked, reduce_op="mean"))
    return dict(zip(detached, mean.tolist(), strict=True))
