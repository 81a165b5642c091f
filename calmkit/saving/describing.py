"""A part as plain data: its class by dotted path, and the arguments of its constructor.

    {"class_path": "calmkit.heads.FlowHead", "init_args": {"cond_size": 8, "latent_size": 4,
        "solver": {"class_path": "calmkit.heads.HeunSolver", "init_args": {"steps": 5}}}}

Numbers, texts, booleans, null and lists stand for themselves. Every JSON object is one of these:

    {"class_path": ..., "init_args": {...}}    a part, or what a function under `recorded` made
    {"returns": PART}                          a function of sizes that gives this part
    {"name": "torch.nn.functional.silu"}       a class or function itself
    {"tuple": [...]}   {"mapping": {...}}      containers
    {"dtype": "float32"}   {"tensor": [...], "dtype": "float32"}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from calmkit.recording import Construction, Factory, construction_of, dotted_path

from .errors import CannotBeSavedError

__all__ = ["describe", "dtype_name"]


def describe(part: object) -> dict[str, Any]:
    """Describe a part by what it was built of.

    Args:
        part: Of a class below `Recorded`, made by a function under `recorded`, or a dataclass.

    Raises:
        CannotBeSavedError: If its construction is not known, or an argument is no plain value.
    """
    return _part(part, type(part).__name__)


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def _part(part: object, where: str) -> dict[str, Any]:
    made = _construction(part, where)
    path = dotted_path(made.maker)
    if path is None:
        raise CannotBeSavedError(
            f"{where} must be of a class or function that can be imported by name to be saved; "
            f"got {made.maker!r}. Define it at the top of a module."
        )
    arguments = {}
    for name, value in made.arguments.items():
        inside = f"{where}.{name}"
        if isinstance(value, Factory):
            arguments[name] = {"returns": _part(getattr(part, name, None), inside)}
        else:
            arguments[name] = _value(value, inside)
    return {"class_path": path, "init_args": arguments}


def _construction(part: object, where: str) -> Construction:
    if (made := construction_of(part)) is not None:
        return made
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        # A field that plays no part in comparison is not what the value is.
        names = [f.name for f in dataclasses.fields(part) if f.init and f.compare]
        return Construction(type(part), {name: getattr(part, name) for name in names})
    raise CannotBeSavedError(
        f"{where} must be made by its class's constructor, and that be a dataclass or derive from "
        f"calmkit.recording.Recorded, to be saved; got {type(part).__name__}."
    )


def _value(value: object, where: str) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_value(entry, where) for entry in value]
    if isinstance(value, tuple):
        return {"tuple": [_value(entry, where) for entry in value]}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise CannotBeSavedError(f"{where} must have texts as keys to be saved; got {value}.")
        return {"mapping": {key: _value(entry, where) for key, entry in value.items()}}
    if isinstance(value, torch.dtype):
        return {"dtype": dtype_name(value)}
    if isinstance(value, Tensor) and construction_of(value) is None:
        return {"tensor": value.tolist(), "dtype": dtype_name(value.dtype)}
    if callable(value) and (path := dotted_path(value)) is not None:
        return {"name": path}
    return _part(value, where)
