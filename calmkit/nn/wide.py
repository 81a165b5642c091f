"""Buffers that a cast of the whole model leaves wide.

`model.bfloat16()` halves what is large: the weights. It reaches every buffer too, and some of
those few numbers are no weights: a shift and a scale of latents, rates of rotary positions. With
three digits they are wrong, and a later `.float()` does not bring back what was lost. Such numbers
follow a cast to float32 or float64 and every change of device, never a cast to fewer bits. What is
computed with them is rounded once, at the end.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["WideBuffers"]

_FEWEST_BITS = torch.finfo(torch.float32).bits


class WideBuffers(nn.Module):
    """A module of which some buffers, or some of its parts' buffers, stay wide."""

    def wide_buffers(self) -> Iterable[tuple[nn.Module, str]]:
        """The modules that own them, and their names there; all own buffers unless overridden."""
        return [(self, name) for name, _ in self.named_buffers(recurse=False)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WideBuffers":
        # Every cast and every move of a module, or of one that holds it, ends here.
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
