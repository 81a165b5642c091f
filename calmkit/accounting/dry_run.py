"""Running a real module without its numbers: every tensor has a shape, a dtype and no memory.

PyTorch's fake tensors are tensors on the meta device that know which device they stand for. All
Python code of a part runs as it is, with its own branches and loops, so that what it costs can
be seen at any size: there is no second description of a part that could disagree with it.

Few parts look at numbers: a cache at how full it is, a score at whether its inputs are finite.
They are answered as if every number were zero: finite, not negative, empty. Small tables, such as
a noise schedule, are real, and so is what is computed from them alone.
"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

__all__ = ["DryRun"]

M = TypeVar("M", bound=nn.Module)


class DryRun:
    """A context in which tensors are made without memory; modules come in with `outline`."""

    def __init__(self) -> None:
        """Prepare; nothing is switched on before the context is entered."""
        # Tables that a part keeps as plain tensors stay real.
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._stack = ExitStack()

    def __enter__(self) -> "DryRun":
        """Make tensors without memory from here on."""
        self._stack.enter_context(self._fake)
        self._stack.enter_context(_Answers())
        return self

    def __exit__(self, *error: object) -> None:
        """Make real tensors again."""
        self._stack.close()

    def outline(self, module: M) -> M:
        """A copy whose parameters and buffers have no memory, in evaluation mode.

        Args:
            module: On any device, also the meta device; it is left as it is.
        """
        memo: dict[int, Any] = {}
        with self._fake:
            for parameter in module.parameters():
                empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")
                memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
            for buffer in module.buffers():
                memo[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
        return copy.deepcopy(module, memo).eval()


class _Answers(TorchDispatchMode):
    """Answers questions for a number; `DryRun` says how.

    What is computed from real tables alone is followed in real numbers, and so are scalars, from
    zeros: a question mostly asks for what was computed from a reduction, such as `x.max() < 0`.
    """

    def __init__(self) -> None:
        super().__init__()
        # The tensor itself is kept too: its id must not be given to another one.
        self._known: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            with unset_fake_temporarily():
                return self._value(args[0]).item()
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.numel() <= _LARGEST_TABLE:
            inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            if all(self._is_known(x) for x in inputs) if inputs else func in _TABLES:
                with unset_fake_temporarily():
                    real_args, real_kwargs = tree_map_only(Tensor, self._value, (args, kwargs))
                    self._known[id(result)] = (result, func(*real_args, **real_kwargs))
        return result

    def _is_known(self, x: Tensor) -> bool:
        return x.ndim == 0 or id(x) in self._known or not isinstance(x, FakeTensor)

    def _value(self, x: Tensor) -> Tensor:
        if id(x) in self._known:
            return self._known[id(x)][1]
        return torch.zeros((), dtype=x.dtype) if isinstance(x, FakeTensor) else x


# What makes numbers out of none, and how many of them are followed.
_TABLES = (
    torch.ops.aten.arange.default,
    torch.ops.aten.arange.start,
    torch.ops.aten.arange.start_step,
    torch.ops.aten.linspace.default,
)
_LARGEST_TABLE = 2**16
