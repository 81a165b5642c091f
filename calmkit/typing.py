"""Shape and dtype checks for tensors, on by default and free where speed matters.

`typed` checks a function's jaxtyping annotations with beartype at each call:

- In eager mode, a wrong shape or dtype, or a batch axis that would broadcast silently, raises
  `jaxtyping.TypeCheckError`, which names the argument, its shape and the sizes bound so far.
- Under `torch.compile` only the bare function is traced, so `fullgraph=True` works.
- In a block of `unchecked` only the bare function is called, for loops whose first pass was
  checked.
- Every item of a container is checked. Beartype alone checks only one item of a list, which it
  draws from Python's global `random`.
- With the environment variable `CALMKIT_TYPECHECK=0` (read at import), `typed` does nothing.
"""

import functools
import inspect
import os
import types
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, ForwardRef, TypeVar, Union, cast, get_args, get_origin

import torch
from beartype import BeartypeConf, beartype
from beartype.door import is_bearable
from beartype.vale import Is
from jaxtyping import TypeCheckError, jaxtyped

__all__ = ["checks_are_on", "typed", "unchecked"]

T = TypeVar("T", bound=Callable[..., Any])

_ENABLED = os.environ.get("CALMKIT_TYPECHECK", "1") != "0"
# An int is accepted as a float, as in Python's own annotations: `alpha=1` is valid.
_CONF = BeartypeConf(is_pep484_tower=True)
_check = beartype(conf=_CONF)
_UNCHECKED = ContextVar("calmkit_unchecked", default=False)


def checks_are_on() -> bool:
    """Whether checks run: not under `torch.compile`, and not where they are turned off."""
    return _ENABLED and not torch.compiler.is_compiling() and not _UNCHECKED.get()


@contextmanager
def unchecked(when: bool = True) -> Iterator[None]:
    """Turn checks off in a block, in this thread.

    The block must not contain a `yield`: checks would then be off in the caller, too.

    Args:
        when: Whether to turn them off; if False, the block has no effect.
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
        if checked is None:  # built on the first call: most imported functions are never called
            checked = jaxtyped(typechecker=_check)(_with_every_item(function))
        try:
            return checked(*args, **kwargs)
        except TypeCheckError as error:
            error.__cause__ = None  # the libraries' own errors, of which it says everything
            raise
        except TypeError:
            try:
                inspect.signature(function).bind(*args, **kwargs)
            except TypeError as error:  # which does not say of what
                raise TypeError(f"{function.__qualname__}(): {error}") from None
            raise

    return call


def _with_every_item(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or a copy with hints that check every item of a container."""
    signature = inspect.signature(function)
    hints = {name: part.annotation for name, part in signature.parameters.items()}
    found = {name: _every_item(hint) for name, hint in hints.items()}
    result = _every_item(signature.return_annotation)
    if result is signature.return_annotation and all(found[n] is hints[n] for n in hints):
        return function

    @functools.wraps(function)
    def copy(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    parts = [part.replace(annotation=found[n]) for n, part in signature.parameters.items()]
    # Without `__wrapped__`, which would expose the old hints.
    vars(copy).pop("__wrapped__")
    vars(copy)["__signature__"] = signature.replace(parameters=parts, return_annotation=result)
    named = {name: hint for name, hint in found.items() if hint is not inspect.Parameter.empty}
    if result is not inspect.Signature.empty:
        named["return"] = result
    copy.__annotations__ = named
    return copy


def _every_item(hint: Any) -> Any:
    """A hint whose containers are checked item by item; itself if it has none."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        inner = tuple(_every_item(one) for one in arguments)
        changed = Union[inner]  # noqa: UP007  # pyrefly: ignore[not-a-type]
        return hint if inner == arguments else changed
    if not (isinstance(origin, type) and issubclass(origin, Collection)):
        return hint
    if origin is tuple and arguments[-1:] != (...,):  # each entry has its own hint
        inner = tuple(_every_item(one) for one in arguments)
        changed = tuple[inner]  # pyrefly: ignore[not-a-type]
        return hint if inner == arguments else changed
    items = tuple(_every_item(one) for one in arguments if one is not ...)
    if any(isinstance(one, str | ForwardRef | TypeVar) for one in items):
        return hint
    return Annotated[origin, Is[_Items(hint, items)]]


@dataclass(frozen=True)
class _Items:
    """Whether all items of a container, or all keys and all values, match a hint."""

    shown: Any
    hints: tuple[Any, ...]

    def __call__(self, container: Any) -> bool:
        if len(self.hints) == 1:
            return _all_are(container, self.hints[0])
        return all(map(_all_are, (container.keys(), container.values()), self.hints))

    def __repr__(self) -> str:
        return f"every item of {self.shown}"


def _all_are(values: Collection[Any], hint: Any) -> bool:
    if hint is int:  # token ids: there may be many
        return all(isinstance(value, int) for value in values)
    return all(is_bearable(value, hint, conf=_CONF) for value in values)
