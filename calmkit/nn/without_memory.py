"""Modules that allocate no memory, built on PyTorch's meta device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["without_memory"]

M = TypeVar("M", bound=nn.Module)


def without_memory(make: Callable[[], M]) -> M:
    """A module on the meta device, or on the default device if its constructor reads values.

    Args:
        make: Builds the module. It may be called twice; the random state is restored afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"), _Undrawn():
                return make()
        except RuntimeError:
            return make()


class _Undrawn(TorchFunctionMode):
    """A context in which tensors without memory are not filled with normal random numbers.

    PyTorch would work out in Python what shape the numbers would have, tensor by tensor, and load
    its compiler for that.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


_DRAWS = (Tensor.normal_, nn.init.normal_)
