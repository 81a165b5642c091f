"""Running a real module without its numbers: every tensor has a shape, a dtype and no memory.

All Python code of a part runs as it is, with its own branches and loops, so that what it costs
can be seen at any size: there is no second description of a part that could disagree with it. See
`Outline` for what its tensors are, and for what a part is told that asks for their numbers.
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
    """A context in which tensors are made without memory; modules come in with `outline`.

    Attributes:
        operations: How many floating-point operations there were so far; see `operations_of`.
    """

    def __init__(self) -> None:
        """Begin to count; nothing is switched on before the context is entered."""
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
            module: On any device, also the meta device; it is left as it is.
        """
        memo: dict[int, Any] = {}
        with self:
            for parameter in module.parameters():
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
            for buffer in module.buffers():
                memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype)
        return copy.deepcopy(module, memo).eval()
