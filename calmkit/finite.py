"""Checks for NaN and infinity; the error names the tensor and counts the values.

`check_finite` is for arguments. It is one of the checks that `unchecked` turns off, and it reads
values only where that is free: eagerly, on the CPU. Elsewhere reading would wait for the device.

`require_finite` is for tensors from which tokens are chosen. The likeliest of NaN logits is some
token, and a text of such tokens looks like any other. So this check is never skipped: neither in a
block of `unchecked` nor on another device. There, `read_together` collects the checks of a block
and reads them at its end with one wait for the device, which such a block usually needs anyway.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from calmkit.private_torch import has_values
from calmkit.typing import checks_are_on

__all__ = ["NonFiniteError", "check_finite", "is_readable", "read_together", "require_finite"]

# Name, size and number of wrong values of each tensor that a block has not read yet.
_UNREAD: ContextVar[list[tuple[str, int, Tensor]] | None] = ContextVar("unread", default=None)


class NonFiniteError(ValueError):
    """A tensor contains NaN or infinity where only finite numbers are valid."""


def check_finite(**tensors: Tensor) -> None:
    """Refuse NaN and infinity in tensors whose values can be read for free.

    Raises:
        NonFiniteError: If a value is not finite; names the tensor and counts the values.
    """
    for name, tensor in tensors.items():
        if not is_readable(tensor):
            continue
        low, high = tensor.detach().aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise _error(name, tensor.numel(), int(_wrong_values(tensor)))


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity in a tensor that tokens are chosen from, even in `unchecked`.

    Args:
        name: Name of the tensor in the message.
        tensor: A tensor on any device. Under `torch.compile` and `vmap` nothing is checked.

    Raises:
        NonFiniteError: If a value is not finite; in a block of `read_together`, no later than at
            its end.
    """
    if torch.compiler.is_compiling() or not has_values(tensor):
        return
    is_near = _is_near(tensor)
    # A sum is one pass without extra memory. It is finite only if all values are; the converse
    # fails if it overflows.
    if is_near and math.isfinite(tensor.sum().item()):
        return
    found, unread = (name, tensor.numel(), _wrong_values(tensor)), _UNREAD.get()
    if is_near or unread is None:
        _raise_for([found])
    else:
        unread.append(found)


@contextmanager
def read_together() -> Iterator[None]:
    """Let `require_finite` wait for a device only once, at the end of a block, in this thread.

    The block must not contain a `yield`.

    Raises:
        NonFiniteError: At the end, if any of the tensors is not finite; names the first.
    """
    unread: list[tuple[str, int, Tensor]] = []
    before = _UNREAD.set(unread)
    try:
        yield
    finally:
        _UNREAD.reset(before)
    _raise_for(unread)


def _is_near(tensor: Tensor) -> bool:
    """Whether values can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def _wrong_values(tensor: Tensor) -> Tensor:
    return (~tensor.isfinite()).sum()


def _raise_for(unread: list[tuple[str, int, Tensor]]) -> None:
    if not unread:
        return
    counts = torch.stack([wrong for _, _, wrong in unread]).tolist()
    for (name, size, _), count in zip(unread, counts, strict=True):
        if count:
            raise _error(name, size, count)


def _error(name: str, size: int, count: int) -> NonFiniteError:
    return NonFiniteError(f"{name} must be finite; {count} of {size} values are NaN or infinite.")


def is_readable(tensor: Tensor) -> bool:
    """Whether values can be read without waiting for a device, and checks are on."""
    return checks_are_on() and _is_near(tensor) and tensor.numel() > 0 and has_values(tensor)
