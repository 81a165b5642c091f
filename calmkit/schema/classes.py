"""Classes named by a config: lookup by name, lists for error messages, and their arguments.

A short name (`FlowHead`) refers to a subclass of the expected class, a dotted path to any class of
the right kind. The arguments of a class are those of its constructor; if it takes `**kwargs`, the
constructors of its base classes count as well.
"""

import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Argument", "Unusable", "arguments_of", "described_classes", "find_class", "known_classes",
    "takes_any", "takes_leading",
]  # fmt: skip


class Unusable(Exception):
    """Why a name is refused, as the end of the sentence "NAME ..."."""


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor.

    Attributes:
        hint: Its annotation; `Any` if it has none.
        required: Whether it has no default.
    """

    hint: Any
    required: bool


def find_class(name: str, base: type | None) -> Callable[..., Any] | None:
    """The class of that name, or a function that is annotated to return one.

    Args:
        name: A short name or a dotted path.
        base: The required base class; None: any class.

    Returns:
        None if several classes have the name.

    Raises:
        Unusable: If there is no such class, or it is abstract or of another kind.
    """
    if "." not in name:
        if base is not None and name == base.__name__ and not _is_concrete(base):
            raise Unusable("is abstract; name one of its subclasses")
        named = [cls for cls in [base, *_below(base)] if cls and cls.__name__ == name]
        if not named or name.startswith("_"):
            raise Unusable("is not a known class")
        found: Any = named[0] if len(named) == 1 else None
    else:
        found = _imported(name)
    if not (found is None or base is None):
        _check_kind(found, base)
    return found


def known_classes(base: type | None, bound: int = 0) -> list[str]:
    """Valid names: the imported public subclasses of a class, calmkit's own first.

    Args:
        base: The class; for a protocol, its implementations in the same package are listed.
        bound: Number of leading arguments that they must take.
    """
    if base is None:
        return []
    if getattr(base, "_is_protocol", False):
        package = base.__module__.rpartition(".")[0]
        return sorted(
            f"{package}.{name}"
            for name, found in vars(sys.modules.get(package)).items()
            if isinstance(found, type) and found is not base and _implements(found, base)
        )
    usable = [cls for cls in _below(base) if _is_concrete(cls) and takes_leading(cls, bound)]
    public = [cls for cls in usable if cls.__name__[0] != "_"]
    calmkit_names = sorted(
        {cls.__name__ for cls in public if cls.__module__.startswith("calmkit.")}
    )
    others = sorted({cls.__name__ for cls in public} - {*calmkit_names})
    return calmkit_names + others


def described_classes(base: type | None, bound: int = 0) -> dict[str, str]:
    """The names of `known_classes`, each with the first line of its docstring."""
    return {
        name: (inspect.getdoc(find_class(name, base)) or "").strip().partition("\n")[0]
        for name in known_classes(base, bound)
    }


def arguments_of(made: Callable[..., Any]) -> dict[str, Argument]:
    """The arguments of a class or function, in order; `**kwargs` adds those of the bases."""
    if not isinstance(made, type):
        return dict(_arguments(made, made))
    found: dict[str, Argument] = {}
    for cls in made.__mro__:
        if cls is made or "__init__" in vars(cls):
            for name, argument in _arguments(cls, cls.__init__).items():
                # A subclass may fill in an argument that it passes on.
                required = argument.required and cls is made
                found.setdefault(name, Argument(argument.hint, required))
            if not takes_any(cls):
                break
    return found


@functools.lru_cache(maxsize=512)  # a config names one class many times
def takes_any(made: Callable[..., Any]) -> bool:
    """Whether it accepts arguments that its signature does not name."""
    try:
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


@functools.lru_cache(maxsize=512)
def takes_leading(made: Callable[..., Any], count: int) -> bool:
    """Whether it accepts so many arguments by position."""
    try:
        inspect.signature(made).bind_partial(*range(count))
    except TypeError:
        return False
    except ValueError:  # no signature
        return True
    return True


@functools.lru_cache(maxsize=512)
def _arguments(made: Callable[..., Any], hinted: Callable[..., Any]) -> Mapping[str, Argument]:
    try:
        parameters = inspect.signature(made).parameters
        hints = typing.get_type_hints(hinted)
    except (NameError, TypeError, ValueError):
        return {}
    return {
        name: Argument(hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def _imported(path: str) -> Any:
    """The object at a dotted path: an attribute of a module, or of a class in a module.

    Raises:
        Unusable: If it cannot be imported, for any reason.
    """
    if not all(piece.isidentifier() for piece in path.split(".")):
        raise Unusable("is not a known class; expected a name, or a dotted path to import")
    module, _, name = path.rpartition(".")
    try:
        try:
            owner = importlib.import_module(module)
        except ModuleNotFoundError as error:
            outer, _, inner = module.rpartition(".")
            if error.name != module or not outer:
                raise
            owner = getattr(importlib.import_module(outer), inner, None)
            if not isinstance(owner, type):
                raise error from None
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        if not isinstance(error, ImportError):
            reason = f"{type(error).__name__}: {reason}"
        raise Unusable(f"cannot be imported: {reason}") from None
    if not hasattr(owner, name):
        raise Unusable(f"cannot be imported: module {module!r} has no attribute {name!r}")
    return getattr(owner, name)


def _check_kind(found: object, base: type) -> None:
    """Refuse a class or function that does not create an object of the required kind.

    Raises:
        Unusable: If it does not.
    """
    if not isinstance(found, type):
        made = getattr(found, "__annotations__", {}).get("return") if callable(found) else None
        if not (isinstance(made, type) and issubclass(made, base)):
            raise Unusable("is not a class")
    elif getattr(base, "_is_protocol", False):
        if not _implements(found, base):
            raise Unusable(f"is not a {base.__name__}")
    elif not issubclass(found, base):
        raise Unusable(f"is not a subclass of {base.__name__}")
    elif not _is_concrete(found):
        raise Unusable("is abstract; name one of its subclasses")


def _implements(cls: type, protocol: type) -> bool:
    """Whether a class has a protocol's methods, with the same argument names."""
    if getattr(cls, "_is_protocol", False):
        return False
    for name, method in vars(protocol).items():
        if name == "__call__" or (callable(method) and not name.startswith("_")):
            own = next((vars(owner)[name] for owner in cls.__mro__ if name in vars(owner)), None)
            if not callable(own):
                return False
            names = list(inspect.signature(method).parameters)
            if list(inspect.signature(own).parameters)[: len(names)] != names:
                return False
    return True


def _is_concrete(cls: type) -> bool:
    return not (inspect.isabstract(cls) or getattr(cls, "_is_protocol", False))


def _below(base: type | None) -> list[type]:
    """All subclasses of a class, without duplicates."""
    found: dict[type, None] = {}
    pending = base.__subclasses__() if base else []
    for cls in pending:
        if cls not in found:
            found[cls] = None
            pending.extend(cls.__subclasses__())
    return list(found)
