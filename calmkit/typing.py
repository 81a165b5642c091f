"""Shape and dtype checks for tensors, on by default and free where speed counts.

`typed` checks a function's jaxtyping annotations with beartype at each call:

- in eager mode a wrong shape, dtype or a batch axis that would broadcast silently raises
  `jaxtyping.TypeCheckError`, which names the argument, its shape and the sizes bound so far;
- under `torch.compile` only the bare function is traced, so `fullgraph=True` works;
- in a block of `unchecked` only the bare function is called: a loop that has been through all that
  it does needs no more checks;
- with the environment variable `CALMKIT_TYPECHECK=0` (read at import) it does nothing at all.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

__all__ = ["checks_are_on", "typed", "unchecked"]

T = TypeVar("T", bound=Callable[..., Any])

_ENABLED = os.environ.get("CALMKIT_TYPECHECK", "1") != "0"
# An int is a float, as Python's own annotations have it: `alpha=1` is no mistake.
_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
_UNCHECKED = ContextVar("calmkit_unchecked", default=False)


def checks_are_on() -> bool:
    """Whether checks run here: not under `torch.compile`, nor where they were turned off."""
    return _ENABLED and not torch.compiler.is_compiling() and not _UNCHECKED.get()


@contextmanager
def unchecked(when: bool = True) -> Iterator[None]:
    """Turn checks off in a block, in this thread.

    A block must not hold a `yield` of its own: checks would be off in whoever reads it.

    Args:
        when: Whether to; if not, the block is as any other.
    """
    before = _UNCHECKED.set(when or _UNCHECKED.get())
    try:
        yield
    finally:
        _UNCHECKED.reset(before)


def typed(target: T) -> T:
    """Check the annotated shapes of a function, or of a dataclass's fields, at each call.

    Args:
        target: A function, or a class whose `__init__` is annotated (a dataclass: decorate it
            with `@typed` above `@dataclass`).

    Raises:
        jaxtyping.TypeCheckError: From the decorated callable, when a shape or dtype is wrong.
    """
    if not _ENABLED:
        return target
    if inspect.isclass(target):
        target.__init__ = _checked(target.__init__)
        return cast(T, target)
    return cast(T, _checked(target))


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    checked: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or _UNCHECKED.get():
            return function(*args, **kwargs)
        nonlocal checked
        if checked is None:  # most functions of an import are never called
            checked = jaxtyped(typechecker=_check)(function)
        return checked(*args, **kwargs)

    return call
