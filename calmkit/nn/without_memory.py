"""Modules without memory, built on PyTorch's meta device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["PlainMode", "without_memory"]

M = TypeVar("M", bound=nn.Module)


class PlainMode(TorchDispatchMode):
    """A dispatch mode, code between PyTorch and its operations, that leaves the compiler out.

    Others ask it to keep off, and import it to do so: that takes longer than to build a model.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def without_memory(make: Callable[[], M]) -> M:
    """A module on the meta device, unless its constructor looks at the numbers it computes.

    Args:
        make: Builds it. It may be called twice; random numbers that it draws are put back.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _NothingDrawn():
                return make()
        except RuntimeError:
            return make()


class _NothingDrawn(PlainMode):
    """Leaves out the drawing of weights, which on the meta device imports PyTorch's compiler."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.ops.aten.normal_.default:
            return args[0]
        return func(*args, **(kwargs or {}))
