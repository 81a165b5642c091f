"""Expand `variants` and `grid` of a comparison into named entries.

    variants: {energy: {head: EnergyHead}, flow: {head: FlowHead}}
    grid: {latent_size: [16, 32]}

gives energy-latent_size-16, energy-latent_size-32, flow-latent_size-16, flow-latent_size-32. If a
value names a class, its label is the name of the class. A grid can also name its values, as a
mapping. Without variants, the grid alone is the comparison.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from calmkit.schema import ConfigError

__all__ = ["Entry", "expand"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]*")
_LONGEST = 120
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
# A class by its short name or its dotted path.
_CLASS = re.compile(r"(?:\w+\.)*([A-Z]\w+)")


@dataclass(frozen=True)
class Entry:
    """One model of a comparison, before its config is parsed.

    Attributes:
        name: Its name.
        variant: The variant it comes from; empty if there are none.
        overrides: Keys that the variant sets.
        options: Keys that the grid sets, as options.
    """

    name: str
    variant: str
    overrides: Mapping[str, Any]
    options: tuple[str, ...]


def expand(variants: object, grid: object, *, name_of_grid: str = "grid") -> list[Entry]:
    """Every variant with every combination of the grid's values, in order.

    Args:
        variants: Names, each with the keys that the variant sets.
        grid: Keys as in options (`head.width`), each with a list of values or a mapping from names
            to values.
        name_of_grid: Its key in the config, for messages.

    Raises:
        ConfigError: If there is nothing to compare, two entries have the same name, a name cannot
            be that of a folder, or a value has the wrong form.
    """
    variants = _mapping("variants", {} if variants is None else variants)
    grid = _mapping(name_of_grid, {} if grid is None else grid)
    if not variants and not grid:
        raise ConfigError("variants must name at least one model to compare; got none.")
    axes = [_labelled(name_of_grid, key, values) for key, values in grid.items()]
    entries: dict[str, Entry] = {}
    for variant, overrides in (variants or {"": {}}).items():
        overrides = _mapping(f"variants.{variant}", {} if overrides is None else overrides)
        for combination in itertools.product(*axes):
            labels = [str(variant), *(label for label, _ in combination)]
            name = "-".join(label for label in labels if label)
            _check_name(name)
            if name in entries:
                raise ConfigError(
                    f"variants must have different names; two are called {name!r}. A grid takes "
                    "names as a mapping: {small: VALUE, large: VALUE}."
                )
            options = tuple(option for _, option in combination)
            entries[name] = Entry(name, str(variant), overrides, options)
    return list(entries.values())


def _check_name(name: str) -> None:
    """Refuse a name that cannot be that of a folder on every system."""
    shown = name if len(name) <= 80 else f"{name[:60]}..."
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(
            f"variants must have names of letters, digits, -, _, = and ., which start with a "
            f"letter or digit and do not end with .; got {shown!r}."
        )
    if len(name) > _LONGEST:
        raise ConfigError(
            f"variants must have names of at most {_LONGEST} characters, because they name "
            f"folders; got {len(name)}: {shown!r}. A grid takes names as a mapping: "
            "{small: VALUE}."
        )
    if _RESERVED.fullmatch(name.partition(".")[0]):
        raise ConfigError(
            f"variants must not have names that Windows reserves for devices; got {name!r}."
        )


def _labelled(grid: str, key: str, values: object) -> list[tuple[str, str]]:
    """A label and an option for each value of one key of the grid."""
    if isinstance(values, Mapping):
        pairs = [(str(name), value) for name, value in values.items()]
    elif isinstance(values, Sequence) and not isinstance(values, str):
        pairs = [(_label(key, value), value) for value in values]
    else:
        raise ConfigError(f"{grid}.{key} must be a list of values; got {values!r}.")
    if not pairs:
        raise ConfigError(f"{grid}.{key} must hold at least one value; got none.")
    return [(label, f"--{key}={_text(value)}") for label, value in pairs]


def _label(key: str, value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("class_path", json.dumps(value))
    named = _CLASS.fullmatch(value) if isinstance(value, str) else None
    return named[1] if named else f"{key.rpartition('.')[2]}-{value}"


def _text(value: object) -> str:
    """A value as the text of an option."""
    return value if isinstance(value, str) else json.dumps(value)


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be keys and values; got {value!r}.")
    return value
