r"""One step on several processes: the division of rows, the weights and the means.

Each process takes every R-th row of the step's batch. Their numbers of scored items can differ
widely. The loss of the step is the mean over all items,

    L = sum_r n_r L_r / sum_r n_r,

where L_r is the mean of process r over its n_r items. Gradients are averaged over the R processes,
so each minimises w_r L_r with the weight w_r = R n_r / sum_r n_r. A single process has weight 1.
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
    """Routes any call through `forward`, where Fabric sets precision and synchronises gradients.

    The call is one opaque function: Fabric would try to rebuild a batch to convert its numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[nn.Module], _Parts]) -> _Parts:
        """Apply the call to the module."""
        return call(self.module)


def rows_of_process(batch: ChunkBatch, fabric: "Fabric") -> ChunkBatch:
    """Every n-th row of a batch, starting from this process's rank, on its device.

    Args:
        batch: The batch of the whole step.
        fabric: Provides rank and number of processes.

    Raises:
        ValueError: If the rows cannot be divided evenly.
    """
    processes = fabric.world_size
    if batch.tokens.shape[0] % processes:
        raise ValueError(
            f"batch_at must return a multiple of {processes} rows, one share for each process; "
            f"got {batch.tokens.shape[0]}."
        )
    if processes > 1:
        batch = batch.rows(slice(fabric.global_rank, None, processes))
    return batch if batch.tokens.device == fabric.device else batch.to(fabric.device)


def weight_of(count: Tensor | float, fabric: "Fabric") -> Tensor:
    """This process's weight in the step.

    Args:
        count: Number of items in its means; NaN signals an error to the other processes.
        fabric: Connects the processes, each of which must call this function.

    Raises:
        NonFiniteError: If another process passed NaN.
    """
    own = torch.as_tensor(count, device=fabric.device)
    if fabric.world_size == 1:
        return (own != 0).float()
    own = own.double()
    total = torch.as_tensor(fabric.all_reduce(own.clone(), reduce_op="sum"))
    # Only on the CPU, where reading a value is free and NaN is detected early.
    if total.device.type == "cpu" and total.isnan() and not own.isnan():
        raise NonFiniteError("another process met a value that is not finite; see its error.")
    return torch.where(own == 0, 0.0, own * fabric.world_size / total)


def weighted(value: Tensor, weight: Tensor) -> Tensor:
    """`weight * value`; if the weight is 0, the result and its gradient are 0 for any value.

    Args:
        value: Any values.
        weight: At least 0, broadcast to the values.
    """
    return torch.where(weight == 0, torch.zeros_like(value), value * weight.to(value.dtype))


def mean_over_processes(
    values: Mapping[str, Tensor], weight: Tensor, fabric: "Fabric"
) -> dict[str, float]:
    """Weighted means of the scalars of all processes, read from the device.

    Args:
        values: This process's means; the same names in each process.
        weight: From `weight_of`.
        fabric: Connects the processes.
    """
    detached = {name: value.detach() for name, value in values.items()}
    if fabric.world_size == 1:
        return {name: float(weighted(value, weight)) for name, value in detached.items()}
    stacked = weighted(torch.stack([value.double() for value in detached.values()]), weight)
    mean = torch.as_tensor(fabric.all_reduce(stacked, reduce_op="mean"))
    return dict(zip(detached, mean.tolist(), strict=True))
