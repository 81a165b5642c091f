"""Descriptions: a part as plain data, by the dotted path of its class and its arguments.

    {"class_path": "calmkit.heads.FlowHead", "init_args": {"cond_size": 8, "latent_size": 4,
        "solver": {"class_path": "calmkit.heads.HeunSolver", "init_args": {"steps": 5}}}}

Numbers, strings, booleans, null and lists represent themselves. A JSON object is one of these:

    {"class_path": ..., "init_args": {...}}    a part, or the result of a `recorded` function
    {"same": "autoencoder"}                    the same module object as the one at that place
    {"returns": PART}                          a function of sizes that builds this part
    {"name": "torch.nn.functional.silu"}       a class or function itself
    {"tuple": [...]}   {"mapping": {...}}      containers
    {"dtype": "float32"}   {"tensor": [...], "dtype": "float32"}
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from calmkit.recording import Construction, Factory, construction_of, dotted_path

from .errors import CannotBeSavedError

__all__ = ["describe", "dtype_name", "place_in"]


def describe(part: object) -> dict[str, Any]:
    """Describe a part by the arguments of its construction.

    Args:
        part: An instance of a subclass of `Recorded`, the result of a `recorded` function, or a
            dataclass.

    Raises:
        CannotBeSavedError: If its construction is unknown, an argument is not a plain value, or a
            module among its arguments is not one of its submodules.
    """
    if isinstance(part, nn.Module):
        _check_unwrapped(part)
    return _Describer(part).described(part, "")


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


class _Describer:
    """Describes one part; remembers the place of each module."""

    def __init__(self, part: object) -> None:
        self._name = type(part).__name__
        self._inside = set(part.modules()) if isinstance(part, nn.Module) else None
        self._places: dict[nn.Module, str] = {}

    def described(self, part: object, place: str) -> dict[str, Any]:
        if isinstance(part, nn.Module):
            if part in self._places:
                return {"same": self._places[part]}
            self._places[part] = place
            self._check_inside(part, place)
        where = self._named(place)
        made = _construction(part, where)
        path = dotted_path(made.maker)
        if path is None:
            raise CannotBeSavedError(
                f"{where} must be of a class or function that can be imported by name to be "
                f"saved; got {made.maker!r}. Define it at the top of a module."
            )
        arguments = {}
        for name, value in made.arguments.items():
            inside = place_in(place, name)
            if isinstance(value, Factory):
                arguments[name] = {"returns": self.described(getattr(part, name, None), inside)}
            else:
                arguments[name] = self._value(value, inside)
        return {"class_path": path, "init_args": arguments}

    def _value(self, value: object, place: str) -> Any:
        where = self._named(place)
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, list | tuple):
            entries = [self._value(v, place_in(place, n)) for n, v in enumerate(value)]
            return {"tuple": entries} if isinstance(value, tuple) else entries
        if isinstance(value, Mapping):
            if not all(isinstance(key, str) for key in value):
                raise CannotBeSavedError(
                    f"{where} must have texts as keys to be saved; got {value}."
                )
            return {"mapping": {k: self._value(v, place_in(place, k)) for k, v in value.items()}}
        if isinstance(value, torch.dtype):
            return {"dtype": dtype_name(value)}
        if isinstance(value, Tensor) and construction_of(value) is None:
            return {"tensor": value.tolist(), "dtype": dtype_name(value.dtype)}
        if callable(value) and (path := dotted_path(value)) is not None:
            return {"name": path}
        return self.described(value, place)

    def _check_inside(self, module: nn.Module, place: str) -> None:
        """Refuse a module that is not a submodule: its weights would be lost."""
        if self._inside is not None and module not in self._inside and module.state_dict():
            raise CannotBeSavedError(
                f"{self._named(place)} must be inside of the {self._name} to be saved with it; it "
                "is only referred to. Save the model that both belong to."
            )

    def _named(self, place: str) -> str:
        return f"{self._name}.{place}" if place else self._name


def place_in(place: str, name: str | int) -> str:
    """The path of an argument, or of an entry of one: `head.solver`."""
    return f"{place}.{name}" if place else str(name)


def _check_unwrapped(part: nn.Module) -> None:
    """Refuse the wrappers of compilation and parallel training: they are not part of the model."""
    for name, module in part.named_modules():
        where = f"{type(part).__name__}.{name}" if name else "model"
        if "_orig_mod" in module._modules:
            raise CannotBeSavedError(
                f"{where} must be the module itself to be saved; got what torch.compile returned. "
                "Compile it in place, by model.compile(), or save its _orig_mod."
            )
        if type(module).__module__.startswith(("torch.nn.parallel.", "lightning_fabric.")):
            raise CannotBeSavedError(
                f"{where} must be the module itself to be saved; got a {type(module).__name__} "
                "around it. Save its .module."
            )


def _construction(part: object, where: str) -> Construction:
    if (made := construction_of(part)) is not None:
        return made
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        # Fields that are ignored in comparisons do not define the value.
        names = [f.name for f in dataclasses.fields(part) if f.init and f.compare]
        return Construction(type(part), {name: getattr(part, name) for name in names})
    raise CannotBeSavedError(
        f"{where} must be made by its class's constructor, and that be a dataclass or derive from "
        f"calmkit.recording.Recorded, to be saved; got {type(part).__name__}."
    )
