"""Building a part from its description, with code from outside calmkit only if it is trusted.

Every name in a description is checked before anything is imported; see `trust`. Only classes that
record their arguments, dataclasses, and `recorded` functions are called.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

from calmkit.foreign_data import ForeignDataError, check_nesting
from calmkit.recording import Recorded, makes_parts

from .describing import place_in
from .errors import SavedModelError
from .trust import check_name, find

__all__ = ["check_trusted", "names_in", "rebuild", "rebuild_module"]


def check_trusted(description: Any, trust: Collection[str] = ()) -> None:
    """Check that a description names only parts of calmkit and trusted code.

    Args:
        description: From `describe`, or read from a file.
        trust: Packages, or modules of them, whose code may be imported and run.

    Raises:
        SavedModelError: If it is nested too deeply, or names something in calmkit that is not a
            part.
        UntrustedCodeError: If it names other code; names it.
    """
    try:
        check_nesting(description)
    except ForeignDataError as error:
        raise SavedModelError(
            f"a description must be as `calmkit.save` writes it; {error}"
        ) from None
    for path in names_in(description):
        check_name(path, trust)


def rebuild(description: Any, *, trust: Collection[str] = ()) -> Any:
    """Build the described part.

    Args:
        description: From `describe`, or read from a file.
        trust: As in `check_trusted`, which is called first.

    Raises:
        SavedModelError: If a name cannot be found, or a constructor refuses its arguments.
        UntrustedCodeError: If it names code outside calmkit that is not trusted.
    """
    check_trusted(description, trust)
    return _Rebuilder(trust).value(description, "")


def rebuild_module(description: Any, *, trust: Collection[str] = ()) -> nn.Module:
    """Like `rebuild`, for a module.

    Raises:
        SavedModelError: As in `rebuild`, and if the part is not a module.
        UntrustedCodeError: As in `rebuild`.
    """
    built = rebuild(description, trust=trust)
    if not isinstance(built, nn.Module):
        raise SavedModelError(f"a saved model must be a module; got a {type(built).__name__}.")
    return built


def names_in(value: Any) -> Iterator[str]:
    """Every name in a description, by the same patterns as `rebuild`."""
    match value:
        case {"class_path": str(path), "init_args": dict(arguments)}:
            yield path
            inside = list(arguments.values())
        case {"returns": part}:
            inside = [part]
        case {"name": str(path)}:
            yield path
            inside = []
        case {"tuple": list(entries)}:
            inside = entries
        case {"mapping": dict(entries)}:
            inside = list(entries.values())
        case _:
            inside = value if isinstance(value, list) else []
    for entry in inside:
        yield from names_in(entry)


class _Rebuilder:
    """Builds one description; remembers each part it has built, by its place."""

    def __init__(self, trust: Collection[str]) -> None:
        self._trust = trust
        self._built: dict[str, Any] = {}

    def value(self, value: Any, place: str) -> Any:
        if isinstance(value, list):
            return [self.value(entry, place_in(place, n)) for n, entry in enumerate(value)]
        if not isinstance(value, dict):
            return value
        match value:
            case {"class_path": str(path), "init_args": dict(arguments)}:
                self._built[place] = self._part(path, arguments, place)
                return self._built[place]
            case {"same": str(other)} if other in self._built:
                return self._built[other]
            case {"returns": inside}:
                # Each further call builds another part: two blocks do not share one.
                first = [self.value(inside, place)]
                return lambda *sizes: first.pop() if first else self.value(inside, place)
            case {"name": str(path)}:
                return find(path, self._trust)
            case {"tuple": list(entries)}:
                return tuple(self.value(entries, place))
            case {"mapping": dict(entries)}:
                return {key: self.value(v, place_in(place, key)) for key, v in entries.items()}
            case {"tensor": entries, "dtype": str(dtype)}:
                return torch.tensor(entries, dtype=_dtype(dtype), device="cpu")
            case {"dtype": str(dtype)}:
                return _dtype(dtype)
        raise SavedModelError(f"a description must be as `calmkit.save` writes it; got {value}.")

    def _part(self, path: str, arguments: dict[str, Any], place: str) -> Any:
        make = find(path, self._trust)
        is_class = inspect.isclass(make)
        is_part = is_class and (issubclass(make, Recorded) or dataclasses.is_dataclass(make))
        if not is_part and not makes_parts(make):
            raise SavedModelError(
                f"{path} must be a part: a class that derives from calmkit.recording.Recorded, a "
                "dataclass, or a function under calmkit.recording.recorded."
            )
        with _naming_class(path):
            given = {name: self.value(v, place_in(place, name)) for name, v in arguments.items()}
            return make(**given)


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise SavedModelError(f"dtype must be the name of one of torch's; got {name!r}.")
    return found


@contextlib.contextmanager
def _naming_class(path: str) -> Iterator[None]:
    """Add the class's name to a constructor's error, once."""
    try:
        yield
    except SavedModelError:
        raise
    except (TypeError, ValueError) as error:
        raise SavedModelError(f"{path}: {error}") from error
