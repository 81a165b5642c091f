"""The presets: configs that come with calmkit, by name, and the commands that take them."""

import functools
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import calmkit

from .comparison_options import COMPARISON_OPTIONS

__all__ = ["PRESETS", "preset_defaults", "preset_names", "preset_purpose"]

PRESETS = Path(calmkit.__file__).parent / "presets"

_OF_COMPARISONS = frozenset(option.name for option in COMPARISON_OPTIONS)
# A comparison trains each model on one device.
_ONE_DEVICE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


def preset_names(command: str | None = None) -> list[str]:
    """Names of the presets, which `--config` accepts besides files.

    Args:
        command: `train` or `compare`: those that this command takes. None: all.
    """
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if command == "train":
        return [name for name in names if not _OF_COMPARISONS & _content(name).keys()]
    if command == "compare":
        return [
            name
            for name in names
            if all(_content(name).get(key, only) == only for key, only in _ONE_DEVICE.items())
        ]
    return names


def preset_purpose(name: str) -> str:
    """The first two sentences of the comment at the top of a preset."""
    lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.lstrip("# ") for line in comment)
    return " ".join(re.split(r"(?<=[.?]) ", text)[:2])


def preset_defaults(*names: str) -> dict[str, str]:
    """Values of presets laid over each other, by dotted keys, as an option would give them.

    Args:
        names: The presets; later ones replace values of earlier ones.
    """
    values: dict[str, str] = {}
    for name in names:
        values |= _flat(_content(name), "")
    return values


@functools.cache
def _content(name: str) -> Mapping[str, Any]:
    import yaml

    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


def _flat(values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """A part becomes its class and its arguments, a group its settings."""
    flat = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping) or key in _OF_COMPARISONS:
            flat[key] = _words(value)
        elif "class_path" in value or "init_args" in value:
            if "class_path" in value:
                flat[key] = value["class_path"].rpartition(".")[2]
            flat |= _flat(value.get("init_args", {}), f"{key}.")
        else:
            flat |= _flat(value, f"{key}.")
    return flat


def _words(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
