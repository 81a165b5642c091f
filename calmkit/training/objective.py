"""Objectives: the means that a step minimises or logs, with their counts.

Counts weight the means of several processes correctly (`processes`): a process with seven scored
chunks has seven times the weight of one with a single scored chunk.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calmkit.chunking import ChunkBatch

__all__ = ["Means", "Objective", "means_of"]


@dataclass(frozen=True, eq=False)
class Means:
    """Scalars of one step, each a mean over the same items, and the number of these items.

    Attributes:
        values: "loss" is minimised; all values are logged.
        count: Number of items that each value is a mean over, for instance scored chunks; at
            least 0. If it is 0 the values are ignored, even if they are NaN, like a mean over
            nothing. But the gradient must not be NaN, as after a division by the count.
    """

    values: Mapping[str, Tensor]
    count: Tensor | float


Objective = Callable[[nn.Module, ChunkBatch, torch.Generator], Mapping[str, Tensor] | Means]
"""Scalars of one step; a plain mapping holds means over the rows of the batch."""


def means_of(result: Mapping[str, Tensor] | Means, batch: ChunkBatch) -> Means:
    """The result of an objective, with its count.

    Raises:
        ValueError: If it cannot be minimised, logged or weighted.
    """
    means = result if isinstance(result, Means) else Means(dict(result), batch.tokens.shape[0])
    _check_values(means.values)
    _check_count(means.count)
    return means


def _check_values(values: Mapping[str, Tensor]) -> None:
    if "loss" not in values:
        raise ValueError(f'objective must return the key "loss"; got {sorted(values)}.')
    for name, value in values.items():
        if name in ("gradient_norm", "learning_rate"):
            raise ValueError(f"objective must not return {name!r}: fit logs it itself; rename it.")
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(
                f"objective must return scalar tensors; got {got} for {name!r}; take a mean."
            )
    if not values["loss"].requires_grad:
        raise ValueError(
            'objective["loss"] must depend on a trained parameter; got a tensor without gradient.'
        )


def _check_count(count: Tensor | float) -> None:
    if isinstance(count, Tensor):
        if count.dim() != 0:
            raise ValueError(f"count must be one number; got shape {tuple(count.shape)}; sum it.")
        if count.device.type != "cpu":
            return  # reading it would wait for the device
    number = float(count)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"count must be finite and at least 0; got {number:g}.")
