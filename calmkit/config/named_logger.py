"""Short names of loggers: `--logger wandb`, or `logger: csv` in a file."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from calmkit.manual import LOGGERS
from calmkit.schema import Source

__all__ = ["with_named_logger"]

_KEY = "logger"


def with_named_logger(
    layers: Sequence[Source], options: Sequence[str]
) -> tuple[list[Source], list[str]]:
    """Replace the short name of a logger by its class, in configs and options.

    Args:
        layers: Configs in the order of merging.
        options: As `--key=value`.
    """
    named = [
        dataclasses.replace(layer, values={**layer.values, _KEY: _named(layer.values[_KEY])})
        if _KEY in layer.values
        else layer
        for layer in layers
    ]
    return named, [_option(option) for option in options]


def _option(option: str) -> str:
    name, equals, value = option.partition("=")
    if name not in (f"--{_KEY}", f"--{_KEY}.class_path", f"--{_KEY}.help"):
        return option
    return f"{name}{equals}{_named(value)}"


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return LOGGERS.get(value.strip().lower(), value)
    if isinstance(value, Mapping) and "class_path" in value:
        return {**value, "class_path": _named(value["class_path"])}
    return value
