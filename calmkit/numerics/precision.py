"""Scores are differences of nearly equal numbers: at least float32, also under autocast."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian

__all__ = ["in_full_precision"]

T = TypeVar("T", bound=Callable[..., Any])


def in_full_precision(function: T) -> T:
    """Call `function` outside autocast, with all floating-point tensors in one dtype.

    It is the widest of their dtypes, but at least float32.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = [x for value in (*args, *kwargs.values()) for x in _tensors(value)]
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in found), torch.float32)
        with torch.autocast(found[0].device.type, enabled=False):
            raised = {name: _raised(x, dtype) for name, x in kwargs.items()}
            return function(*(_raised(x, dtype) for x in args), **raised)

    return cast(T, call)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, DiagonalGaussian):
        return [value.mean, value.std]
    return [value] if isinstance(value, Tensor) and value.is_floating_point() else []


def _raised(value: object, dtype: torch.dtype) -> object:
    return cast(Tensor | DiagonalGaussian, value).to(dtype) if _tensors(value) else value
