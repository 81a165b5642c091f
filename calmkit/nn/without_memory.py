"""Modules that allocate no memory, built on PyTorch's meta device."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

__all__ = ["without_memory"]

M = TypeVar("M", bound=nn.Module)


def without_memory(make: Callable[[], M]) -> M:
    """A module on the meta device, or on the default device if its constructor reads values.

    Args:
        make: Builds the module. It may be called twice; the random state is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except RuntimeError:
            return make()
