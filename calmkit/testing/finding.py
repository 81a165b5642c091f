"""From a dotted path to parts, and from a part to its kind."""

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.heads import Head, Solver
from calmkit.scoring import ScoringRule
from calmkit.testing.kinds import KINDS

__all__ = ["kind_of", "parts_at"]

_BASES = {
    Head: "head",
    ScoringRule: "rule",
    Backbone: "backbone",
    ChunkAutoencoder: "autoencoder",
    Solver: "solver",
}


def kind_of(part: object) -> str | None:
    """The kind of a class, of an instance, or of what a function is annotated to return.

    None if there is no suite for it.
    """
    if inspect.isfunction(part):
        part = inspect.get_annotations(part).get("return")
    cls = part if inspect.isclass(part) else type(part)
    for base, kind in _BASES.items():
        if issubclass(cls, base):
            return kind if kind in KINDS else None
    call = next((vars(one)["__call__"] for one in cls.__mro__ if "__call__" in vars(one)), None)
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
            f"{path} is no class of a kind that there is a suite for. A function that builds a "
            "part must be annotated with what it returns, such as `-> Head`; or say which kind "
            f"with --kind: {', '.join(KINDS)}."
        )
    return {path: (own, found if callable(found) and not _is_part(found) else lambda: found)}


def _is_part(value: object) -> bool:
    builds = inspect.isclass(value) or inspect.isfunction(value)
    return not builds and kind_of(value) is not None


def _is_final_of(value: object, module: ModuleType) -> bool:
    if not inspect.isclass(value) or inspect.isabstract(value):
        return False
    return value.__module__ == module.__name__ or value.__module__.startswith(
        f"{module.__name__}."
    )


def _named(path: str) -> Any:
    """What a dotted path names: a module, or what is reached from one by its attributes."""
    if not all(step.isidentifier() for step in path.split(".")) or path.endswith(".py"):
        raise ValueError(
            f"path must be a module, or a class in it, with dots between; got {path!r}. For "
            "MyHead in my_head.py of this folder it is my_head.MyHead."
        )
    first, *steps = path.split(".")
    name, found = first, _imported(first)
    if found is None:
        raise ValueError(f"{path}: there is no module {first} here, nor one that is installed.")
    for step in steps:
        below = getattr(found, step, None)
        if below is None and isinstance(found, ModuleType):
            below = _imported(f"{name}.{step}")
        if below is None:
            near = difflib.get_close_matches(step, vars(found), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name} has no {step}.{hint}")
        name, found = f"{name}.{step}", below
    return found


def _imported(module: str) -> ModuleType | None:
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ModuleNotFoundError, ValueError):  # what is above it is a plain module
        return None
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
