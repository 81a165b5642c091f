"""Parts that record how they were built, so that a saved model can be rebuilt.

A subclass of `Recorded` records the arguments of its constructor. The result of a function
decorated with `recorded` records the arguments of that call instead. Dataclasses need neither:
their fields are their arguments. `calmkit.saving` writes and reads these records.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

__all__ = [
    "Construction",
    "Factory",
    "Recorded",
    "built_by",
    "check_factory",
    "construction_of",
    "dotted_path",
    "makes_parts",
    "record_changes",
    "recorded",
]

T = TypeVar("T")
_F = TypeVar("_F", bound=Callable[..., Any])
_KEPT_AS = "_construction"
_MOST_SHOWN = 80  # characters of one setting


@dataclass(frozen=True)
class Factory:
    """Represents an argument that cannot be imported by name, such as a lambda that builds a part.

    The part that it built is the attribute of the same name: one of them, if it built several of a
    kind.
    """


@dataclass(frozen=True)
class Construction:
    """The call that made a part.

    Attributes:
        maker: Its class, or a function.
        arguments: The given arguments by name, and defaults that are numbers or strings.
    """

    maker: Callable[..., Any]
    arguments: Mapping[str, Any]


class Recorded:
    """Base class of parts that record the arguments of their constructor."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Record the arguments of the constructor, if the class defines one."""
        super().__init_subclass__(**keywords)
        if "__init__" in cls.__dict__:
            cls.__init__ = _keeping(cls.__init__)

    def extra_repr(self) -> str:
        """The arguments of the constructor apart from modules, which `print` of a module shows.

        One that is stored in an attribute of the same name is shown as it is now.
        """
        made = construction_of(self)
        if made is None:
            return ""
        missing = inspect.Parameter.empty
        shown = []
        for name in inspect.signature(made.maker).parameters:
            value = getattr(self, name, made.arguments.get(name, missing))
            if value is not missing and not isinstance(value, torch.nn.Module):
                text = repr(value)
                brief = len(text) <= _MOST_SHOWN
                shown.append(f"{name}={text if brief else type(value).__name__ + '(...)'}")
        return ", ".join(shown)


def recorded(make: _F) -> _F:
    """Let what a function returns remember this call, not its class's.

    Args:
        make: Builds a part and changes it in a way that its constructor cannot express.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def call(*args: Any, **keywords: Any) -> Any:
        part = make(*args, **keywords)
        _keep(part, call, _given(signature.bind(*args, **keywords)))
        return part

    setattr(call, _KEPT_AS, True)
    return call  # pyrefly: ignore[bad-return]


def construction_of(part: object) -> Construction | None:
    """The call that made a part, if it was recorded."""
    kept = vars(part).get(_KEPT_AS) if hasattr(part, "__dict__") else None
    return kept if isinstance(kept, Construction) else None


def record_changes(part: object, changes: Mapping[str, Any]) -> None:
    """Let a copy of a part remember other arguments than the part that it was copied from.

    If the maker does not take them, `calmkit.save` refuses the copy.

    Args:
        part: The copy.
        changes: Values by the names of arguments.
    """
    if (made := construction_of(part)) is not None:
        _keep(part, made.maker, {**made.arguments, **changes})


def check_factory(**factories: object) -> None:
    """Refuse a part where a function is needed that builds one; a module can be called, too.

    Args:
        factories: By the names of their arguments; None is allowed.

    Raises:
        ValueError: If one is a module, or cannot be called.
    """
    for name, factory in factories.items():
        if isinstance(factory, torch.nn.Module):
            kind = type(factory).__name__
            raise ValueError(
                f"{name} must be what builds a part from its sizes, such as the class {kind} or "
                f"`lambda *sizes: {kind}(*sizes)`; got a part that is built already, {kind}(...)."
            )
        if factory is not None and not callable(factory):
            raise ValueError(
                f"{name} must be what builds a part from its sizes, a class or a function; "
                f"got {factory!r}."
            )


def built_by(name: str, factory: Callable[..., Any], kind: type[T], **sizes: int) -> T:
    """The part that an argument builds; one of another kind or other sizes is refused.

    Args:
        name: Name of the argument.
        factory: A class or function; called with the sizes by position.
        kind: The class of the part.
        sizes: Sizes by the names of the part's attributes.

    Raises:
        ValueError: If the factory is a part itself, cannot be called, or builds something else.
    """
    check_factory(**{name: factory})
    built = factory(*sizes.values())
    if not isinstance(built, kind):
        raise ValueError(
            f"{name} must build a {kind.__name__} from {_listed(sizes)}, and return it; "
            f"got {type(built).__name__}."
        )
    found = [getattr(built, size) for size in sizes]
    if found != list(sizes.values()):
        wanted = _listed(f"{size} = {number}" for size, number in sizes.items())
        raise ValueError(
            f"{name} must build one of the sizes that it is given, {wanted}; got {_listed(found)}."
        )
    return built


def makes_parts(function: object) -> bool:
    """Whether a function is decorated with `recorded`."""
    return inspect.isfunction(function) and vars(function).get(_KEPT_AS) is True


def dotted_path(named: Callable[..., Any]) -> str | None:
    """The shortest path from which a class or function can be imported; None if there is none.

    Args:
        named: The class or function. For example, `calmkit.heads.energy.EnergyHead` is also in
            `calmkit.heads`.
    """
    name, module = getattr(named, "__qualname__", ""), getattr(named, "__module__", None) or ""
    steps = module.split(".")
    for length in range(1, len(steps) + 1):
        place = ".".join(steps[:length])
        if getattr(sys.modules.get(place), name, None) is named:
            return f"{place}.{name}"
    return None


def _listed(words: Iterable[object]) -> str:
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def _keeping(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def call(self: Any, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        # Not while a graph is traced, nor where a subclass's constructor calls this one. The
        # signature is looked up here, since a compiled function cannot close over one.
        if not torch.compiler.is_compiling() and type(self).__init__ is call:
            bound = inspect.signature(init).bind(self, *args, **keywords)
            del bound.arguments[next(iter(bound.arguments))]
            _keep(self, type(self), _given(bound))

    return call


def _given(bound: inspect.BoundArguments) -> dict[str, Any]:
    # Defaults too: another version may have others.
    given: dict[str, Any] = {
        name: parameter.default
        for name, parameter in bound.signature.parameters.items()
        if isinstance(parameter.default, bool | int | float | str)
    }
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        else:
            given[name] = value
    return given


def _keep(part: Any, maker: Callable[..., Any], arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        # A lambda could not be pickled: a part that was picklable stays so.
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            arguments[name] = value if dotted_path(value) else Factory()
    object.__setattr__(part, _KEPT_AS, Construction(maker, arguments))
