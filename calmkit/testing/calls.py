"""Descriptions of calls, for the report of a broken contract."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from calmkit.distributions import DiagonalGaussian

__all__ = ["call_in_words", "in_words", "name_of"]


def call_in_words(
    function: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> str:
    """`MyHead.loss(cond=float64[4, 5], ...)`, with the names of the function's parameters."""
    # A module is called through `forward`, which has the parameter names.
    target = function.forward if isinstance(function, nn.Module) else function
    try:
        bound = inspect.signature(target).bind(*arguments, **keywords).arguments
    except (TypeError, ValueError):  # no signature, or one that the call does not fit
        bound = {**{str(place): value for place, value in enumerate(arguments)}, **keywords}
    inside = ", ".join(f"{name}={in_words(value)}" for name, value in bound.items())
    return f"{name_of(function)}({inside})"


def in_words(value: object) -> str:
    """A short description of a value; for a tensor its dtype, shape and contiguity."""
    if isinstance(value, Tensor):
        lies = "" if value.is_contiguous() else " not contiguous"
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{lies}"
    if isinstance(value, DiagonalGaussian):
        kind = "point mass" if not value.std.any() else "Gaussian"
        return f"{kind} {in_words(value.mean)}"
    if isinstance(value, torch.Generator):
        return f"generator of seed {value.initial_seed()}"
    text = repr(value)
    if " at 0x" in text:  # addresses differ in every run
        return name_of(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def name_of(function: object) -> str:
    """`MyHead.loss` for a bound method, `MyHead` for a class or an instance, else its name.

    A partial function is written as the call that makes it: `partial(MyHead, width=8)`.
    """
    if isinstance(function, functools.partial):
        given = [*map(repr, function.args), *(f"{k}={v!r}" for k, v in function.keywords.items())]
        return f"partial({', '.join([name_of(function.func), *given])})"
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.ismodule(owner):
        return f"{type(owner).__name__}.{getattr(function, '__name__', '__call__')}"
    name = getattr(function, "__qualname__", None)
    if name is None:
        return type(function).__name__
    return "factory" if "<lambda>" in name else name.rpartition("<locals>.")[2]
