"""Modules without memory, built on PyTorch's meta device."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

__all__ = ["without_memory"]

M = TypeVar("M", bound=nn.Module)


def without_memory(make: Callable[[], M]) -> M:
    """A module on the meta device, unless its constructor looks at the numbers it computes.

    Args:
        make: Builds it. It may be called twice; random numbers that it draws are put back.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except RuntimeError:
            return make()
