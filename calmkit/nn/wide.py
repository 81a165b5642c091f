"""Buffers that stay in full precision when the whole model is cast.

`model.bfloat16()` is meant for the weights, but it casts every buffer, too. Some buffers are few
numbers that need their digits: the shift and scale of latents, the rates of rotary positions.
Three digits are not enough for them, and a later `.float()` does not restore what was lost. Such
buffers follow casts to float32 or float64 and changes of device, but never a cast to fewer bits.
Results that are computed with them are rounded once, at the end.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["WideBuffers"]

_FEWEST_BITS = torch.finfo(torch.float32).bits


class WideBuffers(nn.Module):
    """A module some of whose buffers, its own or its submodules', keep full precision."""

    def wide_buffers(self) -> Iterable[tuple[nn.Module, str]]:
        """The owner and name of each such buffer; by default all of the module's own buffers."""
        return [(self, name) for name, _ in self.named_buffers(recurse=False)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideBuffers":
        # Casts and moves of this module, or of one that contains it, all end here.
        before = [(module, name, getattr(module, name)) for module, name in self.wide_buffers()]
        super()._apply(fn, recurse)
        for module, name, buffer in before:
            setattr(module, name, _unless_narrowed(getattr(module, name), buffer))
        return self


def _unless_narrowed(after: Tensor, before: Tensor) -> Tensor:
    if after.dtype == before.dtype:
        return after
    if before.is_floating_point() and after.is_floating_point():
        enough = min(_FEWEST_BITS, torch.finfo(before.dtype).bits)
        if torch.finfo(after.dtype).bits >= enough:
            return after
    return before.to(after.device)
