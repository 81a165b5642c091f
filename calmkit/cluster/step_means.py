r"""Means and gradients of a step that several passes and processes have computed.

Numbers of scored items can differ widely between micro-batches. The loss of the step is the mean
over all items,

    L = sum_i c_i L_i / sum_i c_i,

where L_i is the mean of micro-batch i over its c_i items. The counts are known only after the
forward passes, so each micro-batch adds the gradient of c_i L_i. Gradients are averaged over the R
processes; multiplied by R / sum_i c_i, they are those of L. A single micro-batch has weight 1.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["StepMeans", "weighted"]


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

    def exchange(self) -> None:
        """Add up the counts of all processes since the last call; each must call it as often."""
        own = self._own
        self._own = torch.zeros_like(own)
        if self._fabric.world_size > 1:
            own = torch.as_tensor(self._fabric.all_reduce(own, reduce_op="sum"))
        self._total = self._total + own

    @property
    def scale(self) -> Tensor | None:
        """Factor of the accumulated gradients, after the last `exchange`; None if it is 1."""
        return None if self._alone else self._per_item(self._fabric.world_size)

    def read(self, *, stops: bool = False) -> tuple[dict[str, float], bool]:
        """The means over all items, read from the device, and whether any process stops.

        Args:
            stops: Whether this process is to end after the step.
        """
        sums = torch.stack(list(self._sums.values()))
        if self._fabric.world_size > 1:
            own = torch.cat([sums, sums.new_full((1,), float(stops))])
            total = torch.as_tensor(self._fabric.all_reduce(own, reduce_op="sum"))
            sums, stops = total[:-1], bool(total[-1])
        return dict(zip(self._sums, self._per_item(sums).tolist(), strict=True)), stops

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
