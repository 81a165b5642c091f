"""Finds the parts at a dotted path, and the kind of a part."""

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.backbones import Backbone
from calmkit.heads import Head, Noise, Solver
from calmkit.manual import modules_defining
from calmkit.models import InputEncoder
from calmkit.scoring import Kernel, ScoringRule
from calmkit.spelling import did_you_mean
from calmkit.testing.calls import name_of
from calmkit.testing.kinds import KINDS

__all__ = ["kind_of", "parts_at"]

_BASES = {
    Head: "head",
    ScoringRule: "rule",
    Kernel: "kernel",
    Noise: "noise",
    Solver: "solver",
    ChunkAutoencoder: "autoencoder",
    InputEncoder: "input_encoder",
    Backbone: "backbone",
}

# Protocols are recognised by the parameters of their call.
_PARAMETERS: dict[tuple[str, ...], str] = {
    ("draw", "generator"): "sampler",
    ("q", "k", "v", "mask", "scale", "dropout"): "attention",
}


def kind_of(part: object) -> str | None:
    """The kind of a class, an instance, a function, or a function's annotated result.

    None if there is no suite for it.
    """
    if inspect.isfunction(part):
        return _called_like(part) or kind_of(inspect.get_annotations(part).get("return"))
    cls = part if inspect.isclass(part) else type(part)
    for base, kind in _BASES.items():
        if issubclass(cls, base):
            return kind
    call = next((vars(one)["__call__"] for one in cls.__mro__ if "__call__" in vars(one)), None)
    return _called_like(call, method=True) if inspect.isfunction(call) else None


def parts_at(path: str, kind: str | None = None) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Kind and factory of each part at a path, by the part's own path.

    Args:
        path: Path of a class, a function, an instance or a module. A module stands for all public
            parts that it defines and that have a suite.
        kind: The kind, if it cannot be inferred; selects the parts of a module.

    Raises:
        ValueError: If there is nothing at the path, or no part with a suite.
    """
    found = _named(path)
    if isinstance(found, ModuleType):
        parts = {
            f"{path}.{name}": (own, _factory_of(value))
            for name, (own, value) in _parts_of(found).items()
            if kind in (None, own)
        }
        if not parts:
            sort = "part" if kind is None else kind
            raise ValueError(f"{path} defines no {sort} that there is a suite for.")
        return parts
    own = kind or kind_of(found)
    if own is None:
        raise ValueError(
            f"{path} is of no kind that there is a suite for. A function that builds a part must "
            "be annotated with what it returns, such as `-> Head`; or say which kind with --kind: "
            f"{', '.join(KINDS)}."
        )
    return {path: (own, _factory_of(found))}


def _parts_of(module: ModuleType) -> dict[str, tuple[str, Any]]:
    """Kind and value of each public part that a module defines, by its name there."""
    return {
        name: (kind, value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        if _is_final_of(value, module) and (kind := kind_of(value)) is not None
    }


def _called_like(function: Callable[..., Any], *, method: bool = False) -> str | None:
    """The kind of a protocol, by the names of its parameters."""
    return _PARAMETERS.get(tuple(inspect.signature(function).parameters)[int(method) :])


def _builds(value: object) -> bool:
    """Whether this is a class or function that builds a part, rather than a part."""
    return inspect.isclass(value) or (inspect.isfunction(value) and _called_like(value) is None)


def _factory_of(found: Any) -> Callable[..., Any]:
    """A factory: a class or function itself; for a finished part, a function that returns it."""
    if _builds(found) or (callable(found) and kind_of(found) is None):
        return found

    def make() -> Any:
        return found

    make.__qualname__ = name_of(found)
    return make


def _is_final_of(value: object, module: ModuleType) -> bool:
    is_part = inspect.isfunction(value) and not _builds(value)
    if not (inspect.isclass(value) or is_part) or inspect.isabstract(value):
        return False
    if getattr(value, "_is_protocol", False):
        return False
    return value.__module__ == module.__name__ or value.__module__.startswith(
        f"{module.__name__}."
    )


def _named(path: str) -> Any:
    """The object at a dotted path: a module, or an attribute reached from one."""
    if not all(step.isidentifier() for step in path.split(".")) or path.endswith(".py"):
        raise ValueError(
            f"path must be a module, or a class in it, with dots between; got {path!r}. For "
            "MyHead in my_head.py of this folder it is my_head.MyHead."
        )
    first, *steps = path.split(".")
    name, found = first, _imported(first)
    if found is None:
        own = " or ".join(f"{module}.{path}" for module in modules_defining(path, Path.cwd()))
        hint = f" Write {own}, by the file that defines it." if own else ""
        raise ValueError(
            f"{path}: there is no module {first} here, nor one that is installed.{hint}"
        )
    for step in steps:
        below = getattr(found, step, None)
        if below is None and isinstance(found, ModuleType):
            below = _imported(f"{name}.{step}")
        if below is None:
            hint = did_you_mean(step, vars(found))
            if not hint and isinstance(found, ModuleType) and (own := _parts_of(found)):
                hint = f" It defines {', '.join(own)}."
            raise ValueError(f"{name} has no {step}.{hint}")
        name, found = f"{name}.{step}", below
    return found


def _imported(module: str) -> ModuleType | None:
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ModuleNotFoundError, ValueError):  # the parent is a plain module
        return None
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ValueError(
            f"{module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
