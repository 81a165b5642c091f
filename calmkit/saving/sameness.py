"""Check that a description builds the model that is being saved, before anything is written.

A description records how the model was built. If a module was replaced or a setting changed since
then, it would build a different model, which loads the weights and computes something else.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

import calmkit
from calmkit.nn import without_memory
from calmkit.recording import Recorded

from .describing import describe
from .errors import CannotBeSavedError, SavedModelError
from .limits import check_numbers
from .rebuilding import names_in, rebuild_module

__all__ = ["check_same"]

_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def check_same(model: nn.Module, description: dict[str, Any]) -> None:
    """Build the description without memory, and compare modules, settings and tensors.

    Raises:
        CannotBeSavedError: If they differ; names the first difference.
    """
    # The model's classes are already imported, so trusting their packages runs nothing new.
    trust = {path.partition(".")[0] for path in names_in(description)} - {calmkit.__name__}
    try:
        check_numbers(description, sum(tensor.numel() for tensor in model.state_dict().values()))
        with torch.device("cpu"):  # for a constructor that reads values of tensors
            other = without_memory(lambda: rebuild_module(description, trust=trust))
    except SavedModelError as error:
        raise CannotBeSavedError(
            f"{type(model).__name__} must be built again by its constructors to be saved; {error}"
        ) from error
    new = dict(other.named_modules())
    for name, module in model.named_modules():
        where = name or type(model).__name__
        if type(new.get(name)) is not type(module):
            raise _changed(where, f"a {type(module).__name__}", f"{type(new.get(name)).__name__}")
        for key, value in vars(module).items():
            other_value = vars(new[name]).get(key)
            if _is_setting(key, value) and _plain(other_value) != _plain(value):
                raise _changed(f"{where}.{key}", repr(value), repr(other_value))
    shapes = {name: tuple(tensor.shape) for name, tensor in other.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if shapes.pop(name, None) != tuple(tensor.shape):
            raise _changed(name, f"shape {tuple(tensor.shape)}", "another")
    for name in [*shapes, *(new.keys() - dict(model.named_modules()).keys())]:
        raise _changed(name, "missing, or another's name for the same", "there")


def _is_setting(key: str, value: object) -> bool:
    if key.startswith("_") or key == "training":
        return False
    is_part = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_part or isinstance(value, (*_PLAIN, Recorded))


def _plain(value: object) -> object:
    """A comparable value: the description of a part that does not define equality."""
    return describe(value) if isinstance(value, Recorded) else value


def _changed(where: str, now: str, built: str) -> CannotBeSavedError:
    return CannotBeSavedError(
        f"{where} must be as the constructors made it to be saved, or another model would be "
        f"loaded: it is {now}, and would be {built}. Give it to the constructor."
    )
