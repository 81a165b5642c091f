"""A tensor with a shape, strides, a dtype and a storage, but without memory and numbers.

An `Outline` stands for a tensor on the CPU and holds one on the meta device, which runs every
operation instead. Autograd and the choice of an attention kernel come before that and see a tensor
on the CPU, so they behave as they do there. (PyTorch's own fake tensors would serve as well, but
libraries recognise them and take other branches: transformers keeps a dense mask for them.)

Few parts look at numbers: a cache at how full it is, a score at whether its inputs are finite.
They are answered as if every number were zero: finite, not negative, empty. Small tables, such as
a noise schedule, are real, and so is what is computed from them alone; so are scalars, from
zeros: a question mostly asks for what was computed from a reduction, such as `x.max() < 0`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from calmkit.private_torch import map_tensors, takes_device, without_memory_like

__all__ = ["Outline", "run_outlined"]


class Outline(Tensor):
    """A tensor without memory, on the CPU as it says.

    Attributes:
        shaped: The tensor on the meta device that has its shape, strides and storage.
        numbers: The real tensor it stands for, where that is known.
    """

    shaped: Tensor
    numbers: Tensor | None

    def __new__(cls, shaped: Tensor) -> "Outline":
        """Stand for a tensor of the same shape, strides and dtype."""
        outline = without_memory_like(cls, shaped)
        outline.shaped, outline.numbers = shaped, None
        return outline

    @classmethod
    def __torch_dispatch__(  # pyrefly: ignore[bad-override]
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return run_outlined(func, args, kwargs or {})

    def untyped_storage(self) -> torch.UntypedStorage:
        """The storage, shared with views; it has a size and no memory."""
        return self.shaped.untyped_storage()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Outline({tuple(self.shape)}, {self.dtype})"


def run_outlined(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation of PyTorch without numbers.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments: outlines, and real tensors, which are left as they are.
        kwargs: Its named arguments.

    Returns:
        What it returns, with outlines for tensors.
    """
    if func is torch.ops.aten._local_scalar_dense.default:
        return _numbers_of(args[0]).item()
    given: list[Tensor] = []
    # An operation that writes into its argument returns it: that outline, not a new one.
    outlines: dict[int, Outline] = {}

    def shaped(x: Tensor) -> Tensor:
        given.append(x)
        if not isinstance(x, Outline):
            return x.to("meta")
        outlines[id(x.shaped)] = x
        return x.shaped

    def outlined(x: Tensor) -> Outline:
        return outlines[id(x)] if id(x) in outlines else Outline(x)

    on_meta, options = map_tensors(shaped, (tuple(args), dict(kwargs)))
    if takes_device(func):
        options["device"] = "meta"
    result = map_tensors(outlined, func(*on_meta, **options))
    if isinstance(result, Outline):
        follow = all(map(_is_known, given)) if given else func in _TABLES
        if follow and result.numel() <= _LARGEST_TABLE:
            real, options = map_tensors(_numbers_of, (tuple(args), dict(kwargs)))
            result.numbers = func(*real, **options)
        else:
            result.numbers = None
    return result


def _is_known(x: Tensor) -> bool:
    return x.ndim == 0 or not isinstance(x, Outline) or x.numbers is not None


def _numbers_of(x: Tensor) -> Tensor:
    if not isinstance(x, Outline):
        return x
    return torch.zeros((), dtype=x.dtype, device="cpu") if x.numbers is None else x.numbers


# What makes numbers out of none, and how many of them are followed.
_TABLES = (
    torch.ops.aten.arange.default,
    torch.ops.aten.arange.start,
    torch.ops.aten.arange.start_step,
    torch.ops.aten.linspace.default,
)
_LARGEST_TABLE = 2**16
