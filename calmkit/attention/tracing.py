"""Functions that run while a graph is traced, and leave only their answer in it."""

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["runs_while_tracing"]

F = TypeVar("F", bound=Callable[..., Any])


def runs_while_tracing(function: F) -> F:
    """Keep a function out of compiled graphs: its result there is a constant.

    `torch.compiler.assume_constant_result` sets this same mark, but loads the compiler to do so,
    at the cost of seconds at import.

    Args:
        function: Takes constants only, such as a device; no tensors.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
