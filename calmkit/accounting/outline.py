"""A tensor with a shape, strides, a dtype and a storage, but without memory or values.

An `Outline` represents a tensor on the CPU and wraps a tensor on the meta device, on which every
operation runs. Autograd and the choice of an attention kernel happen before that and see a CPU
tensor, so they behave as on the CPU. (PyTorch's fake tensors would also work, but libraries
recognise them and take other branches: transformers keeps a dense mask for them.)

Few parts read values: a cache reads how full it is, a score whether its inputs are finite. They
get answers as if every value were zero: finite, not negative, empty. Small tables, such as a noise
schedule, have real values, as does everything computed from them alone. Scalars also have values,
computed from zeros, since code mostly reads the result of a reduction, such as `x.max() < 0`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from calmkit.private_torch import map_tensors, takes_device, without_memory_like

from .on_meta import run_on_meta

__all__ = ["Outline", "run_outlined"]


class Outline(Tensor):
    """A tensor without memory that reports the CPU as its device.

    Attributes:
        shaped: The tensor on the meta device with its shape, strides and storage.
        numbers: The real tensor that it represents, if known.
    """

    shaped: Tensor
    numbers: Tensor | None

    def __new__(cls, shaped: Tensor) -> "Outline":
        """Wrap a tensor of the same shape, strides and dtype."""
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
    """Run a PyTorch operation on outlines.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments: outlines, and real tensors, which are not changed.
        kwargs: Its named arguments.

    Returns:
        Its return value, with outlines in place of tensors.
    """
    if func is torch.ops.aten._local_scalar_dense.default:
        return _numbers_of(args[0]).item()
    given: list[Tensor] = []
    # An in-place operation returns its argument, so it must return the same outline.
    outlines: dict[int, Outline] = {}

    def shaped(x: Tensor) -> Tensor:
        given.append(x)
        if not isinstance(x, Outline):
            return x.to("meta")
        outlines[id(x.shaped)] = x
        return x.shaped

    def outlined(x: Tensor) -> Outline:
        return outlines[id(x)] if id(x) in outlines else Outline(x)

    on_meta = map_tensors(shaped, tuple(args))
    options = {name: map_tensors(shaped, value) for name, value in kwargs.items()}
    if takes_device(func):
        options["device"] = "meta"
    result = map_tensors(outlined, run_on_meta(func, on_meta, options))
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


# Operations that create values without inputs, and the largest result whose values are kept.
_TABLES = (
    torch.ops.aten.arange.default,
    torch.ops.aten.arange.start,
    torch.ops.aten.arange.start_step,
    torch.ops.aten.linspace.default,
)
_LARGEST_TABLE = 2**16
