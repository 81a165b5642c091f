"""Run a module on tensors that have a shape and a dtype but no memory.

The Python code of a part runs unchanged, with its branches and loops, so its cost can be counted
at any size, and no second description of the part can disagree with it. `Outline` describes these
tensors, and the answers given to code that reads their values.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from calmkit.private_torch import TorchDispatchMode

from .operations import operations_of
from .outline import run_outlined

__all__ = ["DryRun"]

M = TypeVar("M", bound=nn.Module)


class DryRun(TorchDispatchMode):
    """Context manager that creates tensors without memory; `outline` prepares modules for it.

    Attributes:
        operations: Number of FLOPs so far; see `operations_of`.
    """

    def __init__(self) -> None:
        """Set the counter to 0; the mode becomes active when the context is entered."""
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = run_outlined(func, args, kwargs)
        self.operations += operations_of(func, args, kwargs, result)
        return result

    def outline(self, module: M) -> M:
        """A copy whose parameters and buffers have no memory, in evaluation mode.

        Args:
            module: The module, on any device, including the meta device; it is not changed.
        """
        memo: dict[int, Any] = {}
        with self:
            for parameter in module.parameters():
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
            for buffer in module.buffers():
                memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
        return copy.deepcopy(module, memo).eval()
