"""Difficult tensors: axes of length one or zero, and unusual memory layouts."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["EMPTY_BATCHES", "batches", "laid_out", "layouts", "layouts_and_batches"]


# Separate from the other shapes, since much otherwise correct code cannot reshape an empty tensor.
EMPTY_BATCHES = ((0,), (2, 0), (0, 3))


def batches(strategies: Any) -> Any:
    """Strategy for batch shapes of zero to three axes, axes of length one included."""
    return strategies.lists(strategies.integers(1, 3), max_size=3).map(tuple)


def layouts(strategies: Any) -> Any:
    """Strategy for the layout names of `laid_out`."""
    return strategies.sampled_from(["turned", "strided", "expanded"])


def layouts_and_batches(strategies: Any) -> Any:
    """Strategy for pairs of a layout and a batch shape."""
    return strategies.tuples(layouts(strategies), batches(strategies))


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """Return a tensor in another layout, with the same numbers except for `expanded`.

    Args:
        tensor: A contiguous tensor with at least one axis.
        layout: `turned` swaps the first and last axis in memory, `strided` leaves gaps between
            numbers, and `expanded` repeats the first entry along the first axis with stride zero.
    """
    if layout == "turned":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        # The gaps must not be read; integers have no NaN.
        gap = torch.nan if tensor.is_floating_point() else 1
        return torch.stack([tensor, torch.full_like(tensor, gap)], dim=-1)[..., 0]
    return tensor[:1].expand_as(tensor)
