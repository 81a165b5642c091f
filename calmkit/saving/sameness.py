"""Whether a description builds the model that is being saved, before anything is written.

A description says what the model was built of. Where a module was replaced or a setting changed
since, it would build another one, which loads the weights and computes something else.
"""

import dataclasses
from typing import Any

import torch
from torch import nn

from calmkit.recording import Recorded

from .describing import describe
from .errors import CannotBeSavedError, SavedModelError
from .rebuilding import names_in, rebuild

__all__ = ["check_same", "untrained"]

_PLAIN = (bool, int, float, str, type(None), torch.dtype)


def check_same(model: nn.Module, description: dict[str, Any]) -> None:
    """Build the description without memory, and compare modules, settings and tensors.

    Raises:
        CannotBeSavedError: If they differ; names the first difference.
    """
    # What the model was built of is here already: to import it runs nothing new.
    trust = {path.partition(".")[0] for path in names_in(description)}
    try:
        other = untrained(description, trust=trust, device="meta")
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


def untrained(description: Any, *, trust: Any, device: str) -> nn.Module:
    """A described module with new weights; no random number of the caller is used.

    Args:
        description: By `describe`, or read from a file.
        trust: As in `check_trusted`.
        device: `meta` for one without memory, where its constructors allow that.

    Raises:
        SavedModelError: If it cannot be built, or is no module.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device(device):
                built = rebuild(description, trust=trust)
        except (RuntimeError, NotImplementedError):
            if device != "meta":
                raise
            # A constructor that looks at the numbers it computes.
            with torch.device("cpu"):
                built = rebuild(description, trust=trust)
    if not isinstance(built, nn.Module):
        raise SavedModelError(f"a saved model must be a module; got a {type(built).__name__}.")
    return built


def _is_setting(key: str, value: object) -> bool:
    if key.startswith("_") or key == "training":
        return False
    is_part = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_part or isinstance(value, (*_PLAIN, Recorded))


def _plain(value: object) -> object:
    """What can be compared: of a part without an equality of its own, its description."""
    return describe(value) if isinstance(value, Recorded) else value


def _changed(where: str, now: str, built: str) -> CannotBeSavedError:
    return CannotBeSavedError(
        f"{where} must be as the constructors made it to be saved, or another model would be "
        f"loaded: it is {now}, and would be {built}. Give it to the constructor."
    )
