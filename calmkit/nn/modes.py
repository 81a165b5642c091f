"""Evaluation mode for one caller, without a switch that others see.

`module.training` is shared: a thread that turned it off and on again around its work would turn
dropout on in the midst of another's. A *view* of a module has the same parameters, buffers and
hooks, the very same tensors, and its own modes: each part is a shallow copy whose `training` is
False, as in the replicas of `torch.nn.DataParallel`.
"""

from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import nn

__all__ = ["evaluation_view"]

M = TypeVar("M", bound=nn.Module)


def evaluation_view(module: M) -> M:
    """The module in evaluation mode: itself if all of it is, else a view of it.

    Args:
        module: It is left as it is.

    Raises:
        ValueError: If a part in training mode is compiled: compiled code belongs to the part
            itself, so that a view would run it in training mode.
    """
    if not any(part.training for part in module.modules()):
        return module
    views: dict[int, nn.Module] = {}
    for part in module.modules():
        if part.training and _is_compiled(part):
            raise ValueError(
                "a compiled model must be put into evaluation mode before it is used so; "
                f"{type(part).__name__} is compiled and in training mode. Call model.eval() first."
            )
        views[id(part)] = type(part).__new__(type(part))
    for part in module.modules():
        state = {name: _seen(value, views) for name, value in vars(part).items()}
        state["_modules"] = {
            name: child if child is None else views[id(child)]
            for name, child in part._modules.items()
        }
        # Not through nn.Module's own `__setattr__`, which needs what is being set here.
        vars(views[id(part)]).update(state, training=False)
    return cast(M, views[id(module)])


def _is_compiled(part: nn.Module) -> bool:
    compiled = vars(part).get("_compiled_call_impl") is not None
    return compiled or "forward" in vars(part) or isinstance(part, torch.jit.ScriptModule)


def _seen(value: Any, views: dict[int, nn.Module]) -> Any:
    """An attribute as a view has it: parts that it refers to, and methods of theirs, are views."""
    if isinstance(value, nn.Module):
        return views.get(id(value), value)
    if isinstance(value, MethodType) and id(value.__self__) in views:
        return MethodType(value.__func__, views[id(value.__self__)])
    if type(value) in (list, tuple) and any(isinstance(x, nn.Module) for x in value):
        return type(value)(_seen(x, views) for x in value)
    return value
