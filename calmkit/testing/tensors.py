"""Tensors that are hard on a part: axes of length one or zero, and odd layouts in memory."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["EMPTY_BATCHES", "batches", "laid_out", "layouts", "layouts_and_batches"]


# Apart from the others: much code that is right otherwise cannot reshape an empty tensor.
EMPTY_BATCHES = ((0,), (2, 0), (0, 3))


def batches(strategies: Any) -> Any:
    """Strategy of shapes of up to three batch axes, none and axes of length one among them."""
    return strategies.lists(strategies.integers(1, 3), max_size=3).map(tuple)


def layouts(strategies: Any) -> Any:
    """Strategy of names of what `laid_out` knows."""
    return strategies.sampled_from(["turned", "strided", "expanded"])


def layouts_and_batches(strategies: Any) -> Any:
    """Strategy of pairs of both."""
    return strategies.tuples(layouts(strategies), batches(strategies))


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """A tensor in another layout: the same numbers, but for `expanded`, which repeats the first.

    Args:
        tensor: Contiguous, with at least one axis.
        layout: `turned` swaps first and last axis in memory, `strided` leaves gaps between
            numbers, `expanded` has one entry along the first axis, of stride zero.
    """
    if layout == "turned":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "strided":
        # What stands in the gaps must not be read; integers have no NaN.
        gap = torch.nan if tensor.is_floating_point() else 1
        return torch.stack([tensor, torch.full_like(tensor, gap)], dim=-1)[..., 0]
    return tensor[:1].expand_as(tensor)
