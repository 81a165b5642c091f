"""Limits on the memory that a description may request.

A description of 300 bytes can name a network of terabytes, or a billion layers. The file's header
states how many tensors and numbers follow. While the parts are built, every tensor is counted
before it is made. A description is refused as soon as it requests many times more than the file
contains. Whole numbers that no tensor shows, such as the steps of a schedule, have their own
bound.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from calmkit.private_torch import TorchDispatchMode

from .errors import SavedModelError

__all__ = ["BuildingLimit", "check_numbers"]

# Constructors also make temporary tensors, and some that are not saved.
_TIMES = 8
_MORE_TENSORS = 10_000
_MORE_NUMBERS = 2**27
_LARGEST = 2**24


class BuildingLimit(TorchDispatchMode):
    """Context in which tensors are counted as they are made."""

    def __init__(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Set the limits.

        Args:
            tensors: The saved tensors.
            source: Name of the file in error messages.
        """
        super().__init__()
        self._source = source
        self._saved = sum(tensor.numel() for tensor in tensors.values())
        self._numbers_left = _TIMES * self._saved + _MORE_NUMBERS
        self._tensors_left = _TIMES * len(tensors) + _MORE_TENSORS

    @classmethod
    def of_model(cls, model: nn.Module, source: str) -> "BuildingLimit":
        """The limits of a model's file."""
        return cls(model.state_dict(), source)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count the requested numbers, then make the tensor."""
        if not any(isinstance(argument, Tensor) for argument in args):
            self._tensors_left -= 1
            self._numbers_left -= _requested_numbers(func, args)
            if self._tensors_left < 0 or self._numbers_left < 0:
                raise SavedModelError(
                    f"{self._source}: the description must request tensors that the file can "
                    f"fill; it has {self._saved} numbers, and many times more are requested."
                )
        return func(*args, **(kwargs or {}))


def check_numbers(value: object, numbers: int = 0) -> None:
    """Check that no whole number, at any depth, is too large to be a size.

    Args:
        value: Plain data.
        numbers: How many numbers the file holds; the bound, if it is above 2^24.

    Raises:
        SavedModelError: If a number is too large.
    """
    most = max(numbers, _LARGEST)
    left = [value]
    while left:
        now = left.pop()
        if isinstance(now, Mapping):
            left += now.values()
        elif isinstance(now, list | tuple):
            left += now
        elif isinstance(now, int) and not -most <= now <= most:
            raise SavedModelError(
                f"a whole number must be at most {most} in a saved model; got one of "
                f"{len(str(abs(now)))} digits."
            )


def _requested_numbers(func: Any, args: Sequence[Any]) -> int:
    """An upper bound of the numbers in a new tensor, by its shape or its length."""
    if func.overloadpacket in (torch.ops.aten.arange, torch.ops.aten.linspace):
        return max((abs(one) for one in args if isinstance(one, int)), default=0)
    lists = [one for one in args if isinstance(one, list | tuple)]
    shapes = [one for one in lists if all(isinstance(size, int) for size in one)]
    return max((math.prod(shape) for shape in shapes), default=0)
