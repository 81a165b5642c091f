"""Operations on the meta device, each worked out once for arguments of the same form.

PyTorch works out the shape of a result in Python, which takes much longer than to allocate a
tensor without memory. A part applies the same operation to tensors of the same form at each step
of a solver and in each of its blocks, so the form of the result is stored. Views and operations
that write into an argument share memory, which the forms do not describe: they always run.
"""

from collections.abc import ItemsView, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from calmkit.private_torch import shares_memory, storage_id

__all__ = ["run_on_meta"]

# Of operations with a form of arguments, so that a long process does not keep each it has seen.
_MOST_FORMS = 20_000


@dataclass(frozen=True)
class _Form:
    """What determines a new tensor on the meta device."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


_PLAIN = (
    bool, int, float, complex, str, type(None),
    torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
_results: dict[Any, Any] = {}


def run_on_meta(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run a PyTorch operation on tensors of the meta device, or repeat the form of its result.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments.
        kwargs: Its named arguments.
    """
    if shares_memory(func):
        return func(*args, **kwargs)
    try:
        # A result without floating-point arguments is of the default dtype.
        key = func, torch.get_default_dtype(), _described(args), _described(kwargs.items())
    except TypeError:
        return func(*args, **kwargs)
    known = _results.get(key)
    if known is not None:
        return _new(known)
    result = func(*args, **kwargs)
    given = {storage_id(tensor) for tensor in _tensors_in([*args, *kwargs.values()])}
    tensors = list(_tensors_in(result))
    forms = [_Form(tuple(x.shape), x.stride(), x.dtype) for x in tensors]
    # Some operations return a view of an argument without saying so.
    if given.isdisjoint(map(storage_id, tensors)) and all(map(_is_whole, tensors, forms)):
        if len(_results) >= _MOST_FORMS:
            _results.clear()
        _results[key] = _with_forms(result, iter(forms))
    return result


def _described(value: Any) -> Any:
    """What the form of a result can depend on; hashable, and different for 1, 1.0 and True.

    Raises:
        TypeError: If it is anything else, such as a random generator or a profiler's record.
    """
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.storage_offset(), value.dtype
    if type(value) in _PLAIN:
        return type(value), value
    if isinstance(value, tuple | list | ItemsView):
        return tuple(map(_described, value))
    raise TypeError


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _tensors_in(entry)


def _is_whole(tensor: Tensor, form: _Form) -> bool:
    """Whether a tensor begins and ends where its storage does."""
    needed = form.tensor().untyped_storage().nbytes()
    return tensor.storage_offset() == 0 and tensor.untyped_storage().nbytes() == needed


def _with_forms(result: Any, forms: Iterator[_Form]) -> Any:
    if isinstance(result, Tensor):
        return next(forms)
    if isinstance(result, tuple | list):
        return tuple(_with_forms(entry, forms) for entry in result)
    return result


def _new(known: Any) -> Any:
    if isinstance(known, _Form):
        return known.tensor()
    return tuple(map(_new, known)) if isinstance(known, tuple) else known
