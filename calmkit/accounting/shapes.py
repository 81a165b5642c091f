"""Shapes, strides and dtypes of results on the CPU, for tensors of any size.

PyTorch tells them for tensors on its meta device, mostly by code in Python: a tenth of a
millisecond for each operation, and before the first one an import of its compiler, which takes
longer than the account of any model. Of most operations, though, each size of a result is a size
of an argument. Those are tried: the CPU's own code runs on small tensors, in which every size is
replaced by a small one of its own, and the sizes of the result are replaced back.

    (2048, 2560) @ (2560, 6880)   is tried as   (2, 3) @ (3, 4),   and (2, 4) is (2048, 6880)

Everything else is left to the meta device, and so is what cannot be tried: sizes that do not fit
are then refused in PyTorch's own words.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["map_tensors", "result_of"]

aten = torch.ops.aten


def result_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation returns, without numbers and on the meta device.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments, with tensors on the meta device.
        kwargs: Its named arguments.
    """
    result = None
    if func in _MADE:
        result = _MADE[func](*args, **kwargs)
    elif _can_be_tried(func):
        result = _tried(func, args, kwargs)
    if result is not None:
        return result
    return func(*args, **{**kwargs, "device": "meta"} if _takes_device(func) else kwargs)


def map_tensors(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The same with every tensor changed, also those in lists."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return [map_tensors(change, one) for one in value]
    if isinstance(value, dict):
        return {name: map_tensors(change, one) for name, one in value.items()}
    return value


def _tried(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result by a trial; None if it fails."""
    small = {0: 0, 1: 1}

    def shrink(x: Tensor) -> Tensor:
        sizes = [small.setdefault(size, len(small)) for size in x.shape]
        strides = _packed(sizes, x.stride())
        return torch.empty_strided(sizes, strides, dtype=x.dtype, device="cpu").fill_(1)

    def grow(x: Tensor) -> Tensor:
        return _laid_out_as(x, [large[size] for size in x.shape])

    few = map_tensors(shrink, args)
    if func in _SIZES_AT:
        few[_SIZES_AT[func]] = [small[size] for size in few[_SIZES_AT[func]]]
    try:
        trial = func(*few, **map_tensors(shrink, kwargs))
    except (IndexError, RuntimeError):
        return None
    if func._schema.is_mutable:  # it has written into its first argument
        return args[0]
    large = {ours: theirs for theirs, ours in small.items()}
    return map_tensors(grow, trial)


def _packed(sizes: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Strides in the same order without gaps; dimensions that were expanded still are."""
    packed, step = {0: 0}, 1
    for stride, size in sorted(zip(strides, sizes, strict=True)):
        if stride:
            packed.setdefault(stride, step)
            step *= max(size, 1)
    return [packed[stride] for stride in strides]


@functools.cache
def _can_be_tried(func: Any) -> bool:
    """Also where each element is computed alone, in place too."""
    if torch.Tag.pointwise not in func.tags:
        return func in _TRIED
    return not func.is_view and (not func._schema.is_mutable or func._schema.name.endswith("_"))


@functools.cache
def _takes_device(func: Any) -> bool:
    return any(argument.name == "device" for argument in func._schema.arguments)


def _new(sizes: Sequence[int], dtype: torch.dtype | None) -> Tensor:
    return torch.empty(sizes, dtype=dtype, device="meta")


def _laid_out_as(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """With strides in the order of another tensor's."""
    return torch.empty_strided(sizes, _packed(sizes, x.stride()), dtype=x.dtype, device="meta")


def _arange(start: float, end: float, step: float = 1, *, dtype: Any = None, **_: Any) -> Tensor:
    if dtype is None and all(isinstance(bound, int) for bound in (start, end, step)):
        dtype = torch.int64
    return _new([math.ceil((end - start) / step)], dtype)


def _triangle(rows: int, columns: int, offset: int = 0, *, dtype: Any = None, **_: Any) -> Tensor:
    entries = sum(max(columns - max(row + offset, 0), 0) for row in range(rows))
    return _new([2, entries], dtype or torch.int64)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    others = {(*x.shape[:dim], None, *x.shape[dim:][1:], x.dtype) for x in tensors}
    # From four dimensions on the result may have channels last.
    if len(others) > 1 or not all(x.ndim < 4 or x.is_contiguous() for x in tensors):
        return None
    sizes = list(first.shape)
    sizes[dim] = sum(x.shape[dim] for x in tensors)
    return _new(sizes, first.dtype)


def _attention(query: Tensor, *rest: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """The result, and the logarithms of the sums of weights."""
    rows, heads, queries, _ = query.shape
    sums = _new([rows, queries, heads], torch.promote_types(query.dtype, torch.float32))
    return _laid_out_as(query, query.shape), sums.transpose(1, 2)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    if any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in indices):
        return None  # as many elements as are true
    return _tried(aten.index.Tensor, (x, indices), {})


# Sizes of a result are sizes of arguments, and of those matters only which are equal. (Attention,
# below, divides one by another.)
_TRIED = {
    aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default,
    aten.sum.dim_IntList, aten.mean.dim, aten.amax.default, aten.amin.default,
    aten.aminmax.default, aten.max.dim, aten.min.dim, aten.all.default, aten.all.dim,
    aten.any.default, aten.any.dim, aten._softmax.default, aten._log_softmax.default,
    aten._softmax_backward_data.default, aten._log_softmax_backward_data.default,
    aten.cumsum.default, aten.roll.default, aten.flip.default, aten.ones_like.default,
    aten.zeros_like.default, aten.embedding.default, aten.index_put.default,
    aten._cdist_forward.default, aten._cdist_backward.default,
    aten.native_layer_norm.default, aten.native_layer_norm_backward.default,
    aten.nll_loss_forward.default, aten.nll_loss_backward.default,
}  # fmt: skip
# Where an argument is sizes.
_SIZES_AT = {aten.native_layer_norm.default: 1, aten.native_layer_norm_backward.default: 2}
# Results whose sizes are told otherwise.
_MADE: dict[Any, Callable[..., Any]] = {
    aten.arange.default: lambda end, **options: _arange(0, end, **options),
    aten.arange.start: _arange,
    aten.arange.start_step: _arange,
    aten.randn.default: lambda sizes, dtype=None, **options: _new(sizes, dtype),
    aten.slice_backward.default: lambda gradient, sizes, *slices: _new(sizes, gradient.dtype),
    aten.select_backward.default: lambda gradient, sizes, *place: _new(sizes, gradient.dtype),
    aten.triu_indices.default: _triangle,
    aten.cat.default: _cat,
    aten.index.Tensor: _index,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
}
