r"""One step on several processes, and in several passes of each: rows, weights and means.

The rows of a step's batch are divided into n micro-batches. Micro-batch i holds the rows i, i + n,
i + 2n, ... and is the unit of randomness: it has a generator of its own. Process r of R computes
the micro-batches r, r + R, r + 2R, ... one after another. The rows and the random numbers of a
step thus depend on the size of the micro-batches, but not on the number of processes.

Numbers of scored items can differ widely between micro-batches. The loss of the step is the mean
over all items,

    L = sum_i c_i L_i / sum_i c_i,

where L_i is the mean of micro-batch i over its c_i items. The counts are known only after the
forward passes, so each micro-batch adds the gradient of c_i L_i. Gradients are averaged over the R
processes; multiplied by R / sum_i c_i, they are those of L. A single micro-batch has weight 1.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calmkit.finite import NonFiniteError

from .objective import Means

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Caller", "Share", "StepMeans", "share_of", "weighted"]


class Caller(nn.Module):
    """Routes any call through `forward`, where Fabric sets precision and synchronises gradients.

    The call is one opaque function: Fabric would try to rebuild a batch to convert its numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(
        self, call: Callable[[nn.Module], Means]
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Apply the call to the module; Fabric registers its hooks on plain tensors only."""
        means = call(self.module)
        return dict(means.values), means.count


@dataclass(frozen=True)
class Share:
    """The micro-batches of one process.

    Attributes:
        count: n, the number of micro-batches of the step, over all processes.
        numbers: Those of this process, in order.
    """

    count: int
    numbers: range


def share_of(
    rows: int,
    micro_batch: int | None,
    *,
    process: int = 0,
    processes: int = 1,
    name: str = "batch_size",
) -> Share:
    """The micro-batches that a process computes.

    Args:
        rows: Number of rows of the step's batch.
        micro_batch: Number of rows of a micro-batch. None: the batch is divided evenly among the
            processes, one micro-batch for each.
        process: Rank of the process.
        processes: Number of processes.
        name: What the user calls the number of rows.

    Raises:
        ValueError: If the rows cannot be divided evenly.
    """
    size = micro_batch or 1
    if rows % (processes * size):
        product = f"devices * micro_batch = {processes} * {size} = {processes * size}"
        rule = product if micro_batch else f"the {processes} devices"
        raise ValueError(
            f"{name} must be a multiple of {rule}, so that each device computes as many rows; got "
            f"{rows}. Change one of them."
        )
    count = rows // micro_batch if micro_batch else processes
    return Share(count, range(process, count, processes))


class StepMeans:
    """The means of a step, collected from its micro-batches and processes."""

    def __init__(self, fabric: "Fabric", *, alone: bool) -> None:
        """Collect nothing yet.

        Args:
            fabric: Connects the processes.
            alone: Whether the step has only one micro-batch, whose weight is then 1.
        """
        self._fabric, self._alone = fabric, alone
        self._dtype = torch.float32 if fabric.device.type == "mps" else torch.float64
        self._own = self._total = torch.zeros((), dtype=self._dtype, device=fabric.device)
        self._sums: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor], count: Tensor | float) -> Tensor:
        """Add the means of a micro-batch of this process.

        Args:
            values: The means; the same names in each micro-batch.
            count: Number of items that they are means over.

        Returns:
            The weight of the micro-batch's loss.

        Raises:
            ValueError: If the names differ from those of the micro-batches before.
        """
        if self._sums and self._sums.keys() != values.keys():
            raise ValueError(
                "objective must return the same keys for every micro-batch; got "
                f"{sorted(values)} after {sorted(self._sums)}."
            )
        weight = torch.as_tensor(count, dtype=self._dtype, device=self._fabric.device)
        if self._alone:
            weight = (weight != 0).to(self._dtype)
        self._own = self._own + weight
        for name, value in values.items():
            term = weighted(value.detach().to(self._dtype), weight)
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        return weight

    def exchange(self, *, failed: bool = False) -> None:
        """Add up the counts of all processes since the last call; each must call it as often.

        Args:
            failed: Whether this process met a value that is not finite, which stops the others.

        Raises:
            NonFiniteError: If another process failed.
        """
        own = torch.full_like(self._own, math.nan) if failed else self._own
        self._own = torch.zeros_like(self._own)
        if self._fabric.world_size > 1:
            own = torch.as_tensor(self._fabric.all_reduce(own, reduce_op="sum"))
            # Only on the CPU, where reading a value does not wait for the device.
            if own.device.type == "cpu" and own.isnan() and not failed:
                raise NonFiniteError(
                    "another process met a value that is not finite; see its error."
                )
        self._total = self._total + own

    @property
    def scale(self) -> Tensor | None:
        """Factor of the accumulated gradients, after the last `exchange`; None if it is 1."""
        return None if self._alone else self._per_item(self._fabric.world_size)

    def read(self) -> dict[str, float]:
        """The means over all items, read from the device."""
        sums = torch.stack(list(self._sums.values()))
        if self._fabric.world_size > 1:
            sums = torch.as_tensor(self._fabric.all_reduce(sums, reduce_op="sum"))
        return dict(zip(self._sums, self._per_item(sums).tolist(), strict=True))

    def _per_item(self, value: Tensor | float) -> Tensor:
        """A value over the total count; 0 if there is nothing to count."""
        return torch.where(self._total == 0, 0.0, value / self._total)


def weighted(value: Tensor, weight: Tensor) -> Tensor:
    """`weight * value`; if the weight is 0, the result and its gradient are 0 for any value.

    Args:
        value: Any values.
        weight: At least 0, broadcast to the values.
    """
    return torch.where(weight == 0, torch.zeros_like(value), value * weight.to(value.dtype))
