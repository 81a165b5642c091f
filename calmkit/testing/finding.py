"""From a dotted path to parts, and from a part to its kind."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.heads import Head
from calmkit.scoring import ScoringRule
from calmkit.testing.kinds import KINDS

__all__ = ["kind_of", "parts_at"]

_BASES = {
    Head: "head",
    ScoringRule: "rule",
    Backbone: "backbone",
    ChunkAutoencoder: "autoencoder",
}


def kind_of(part: object) -> str | None:
    """The kind of a class or an instance; None if there is no suite for it."""
    cls = part if inspect.isclass(part) else type(part)
    for base, kind in _BASES.items():
        if issubclass(cls, base):
            return kind if kind in KINDS else None
    call = vars(cls).get("__call__")
    if inspect.isfunction(call):
        # A protocol: what it is called with says what it is.
        if list(inspect.signature(call).parameters)[1:] == ["draw", "generator"]:
            return "sampler"
    return None


def parts_at(path: str, kind: str | None = None) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Kind and factory of each part that a path names, by the part's own path.

    Args:
        path: Of a class, a function or an instance, or of a module: then all classes that it
            defines of a kind there is a suite for.
        kind: The kind, for what does not tell it by itself; of a module's parts only these.

    Raises:
        ValueError: If there is nothing at the path, or nothing with a suite.
    """
    found = _named(path)
    if isinstance(found, ModuleType):
        parts = {
            f"{path}.{name}": (own, value)
            for name, value in vars(found).items()
            if _is_final_of(value, found) and (own := kind_of(value)) is not None
            if kind in (None, own)
        }
        if not parts:
            sort = "part" if kind is None else kind
            raise ValueError(f"{path} defines no {sort} that there is a suite for.")
        return parts
    own = kind or kind_of(found)
    if own is None:
        raise ValueError(
            f"{path} is no class of a kind that there is a suite for; for a function that builds "
            f"one, say which with --kind: {', '.join(KINDS)}."
        )
    return {path: (own, found if callable(found) and not _is_part(found) else lambda: found)}


def _is_part(value: object) -> bool:
    return not inspect.isclass(value) and kind_of(value) is not None


def _is_final_of(value: object, module: ModuleType) -> bool:
    if not inspect.isclass(value) or inspect.isabstract(value):
        return False
    return value.__module__ == module.__name__ or value.__module__.startswith(
        f"{module.__name__}."
    )


def _named(path: str) -> Any:
    """What a dotted path names."""
    steps = path.split(".")
    for length in range(len(steps), 0, -1):
        name = ".".join(steps[:length])
        if not _exists(name):
            continue
        try:
            found: Any = importlib.import_module(name)
        except Exception as error:
            raise ValueError(
                f"{name} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        for place, step in enumerate(steps[length:], start=length):
            if not hasattr(found, step):
                raise ValueError(f"{'.'.join(steps[:place])} has no {step}.")
            found = getattr(found, step)
        return found
    raise ValueError(f"{path}: there is no module {steps[0]} here, nor one that is installed.")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # its package is none, or a plain module
        return False
