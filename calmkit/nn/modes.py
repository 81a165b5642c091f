"""Evaluation mode for one caller, without changing the module for others.

`module.training` is shared: a thread that switched it off and on again around its work would
switch dropout on in the middle of another thread's. A *view* of a module shares its parameters,
buffers and hooks, but has its own modes: each submodule is a shallow copy whose `training` is
False, as in the replicas of `torch.nn.DataParallel`.
"""

from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import nn

__all__ = ["evaluation_view"]

M = TypeVar("M", bound=nn.Module)


def evaluation_view(module: M) -> M:
    """The module in evaluation mode: itself if all of it is already, otherwise a view of it.

    Args:
        module: The module; it is not changed.

    Raises:
        ValueError: If a submodule in training mode is compiled: compiled code belongs to the
            submodule itself, so a view would run it in training mode.
    """
    if not any(part.training for part in module.modules()):
        return module
    views: dict[int, nn.Module] = {}
    for part in module.modules():
        if part.training and _is_compiled(part):
            raise ValueError(
                "a compiled model must be in evaluation mode before it is used like this; "
                f"{type(part).__name__} is compiled and in training mode. Call model.eval() first."
            )
        views[id(part)] = type(part).__new__(type(part))
    for part in module.modules():
        state = {name: _in_view(value, views) for name, value in vars(part).items()}
        state["_modules"] = {
            name: child if child is None else views[id(child)]
            for name, child in part._modules.items()
        }
        # Bypass nn.Module's `__setattr__`, which needs the attributes that are set here.
        vars(views[id(part)]).update(state, training=False)
    return cast(M, views[id(module)])


def _is_compiled(part: nn.Module) -> bool:
    compiled = vars(part).get("_compiled_call_impl") is not None
    return compiled or "forward" in vars(part) or isinstance(part, torch.jit.ScriptModule)


def _in_view(value: Any, views: dict[int, nn.Module]) -> Any:
    """An attribute's value in a view: submodules and their bound methods become views."""
    if isinstance(value, nn.Module):
        return views.get(id(value), value)
    if isinstance(value, MethodType) and id(value.__self__) in views:
        return MethodType(value.__func__, views[id(value.__self__)])
    if type(value) in (list, tuple) and any(isinstance(x, nn.Module) for x in value):
        return type(value)(_in_view(x, views) for x in value)
    return value
