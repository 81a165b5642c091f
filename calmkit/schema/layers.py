"""Check configs and options against the schema, before the parser sees them.

The schema consists of the constructors of the experiment and of the classes that a config names.
Layers are walked in the order in which the parser merges them, options last, so the class of each
part is known before its arguments. An error message names the key as the user wrote it, its
source, the valid values and the closest match.

    head.init_args.widht: EnergyHead has no argument 'widht' (my.yaml).
      did you mean: width
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .classes import Argument, described_classes
from .errors import ConfigError, Source
from .values import shown
from .walk import Place, Walk

__all__ = ["HelpAsked", "check_layers"]

_PRINTING = ("--help", "--print_config")
_PRINT_FLAGS = ("comments", "skip_default", "skip_null")


@dataclass(frozen=True)
class HelpAsked:
    """A request for the classes of a part, and for the arguments of one.

    Attributes:
        key: The part's key.
        made: The class that the option names, or else the part's class; None if it has none.
        bound: The number of its arguments that come from the shared sizes.
        listed: The classes that the key may name, each with the first line of its docstring; None
            if the option names one.
    """

    key: str
    made: Callable[..., Any] | None
    bound: int
    listed: Mapping[str, str] | None


def check_layers(
    schema: Mapping[str, Argument], layers: Sequence[Source], options: Sequence[str]
) -> HelpAsked | None:
    """Check configs and options.

    Args:
        schema: The keys, as `arguments_of` gives them.
        layers: Configs in the order of merging.
        options: As `--key=value`.

    Returns:
        The request for help among the options, if any.

    Raises:
        ConfigError: If a key, a class, an argument's name or a value's type is wrong, or a
            required value is missing.
    """
    walk = Walk(schema)
    try:
        for layer in layers:
            for key, value in layer.values.items():
                walk.top(str(key), [], str(key), value, f" ({layer.name})")
        asked = [_option(walk, option) for option in options]
    except RecursionError:
        raise ConfigError("config must not be nested so deeply, or contain itself.") from None
    printed = next((help for help in asked if help is not None), None)
    if printed is None and not any(o.partition("=")[0] in _PRINTING for o in options):
        walk.check_complete()
    return printed


def _option(walk: Walk, option: str) -> HelpAsked | None:
    """Check one option."""
    name, equals, value = option.partition("=")
    written = name.removeprefix("--")
    key, *rest = written.split(".")
    if name in _PRINTING:
        if name == "--print_config" and equals:
            if not set(value.split(",")) <= set(_PRINT_FLAGS):
                raise ConfigError(
                    f"{name} takes no value, or some of these separated by commas; got "
                    f"{shown(value)}.",
                    allowed=_PRINT_FLAGS,
                )
        elif equals:
            raise ConfigError(
                f"{name} takes no value; got {shown(value)}. For the arguments of a part use "
                "--KEY.help, for instance --head.help FlowHead."
            )
    elif not key:
        raise ConfigError(f"{name}: expected an option of the form --key value.")
    elif rest[-1:] == ["help"]:
        return _help(walk, key, rest[:-1], value)
    elif key in walk.schema and not equals:
        values = ", true or false" if walk.schema[key].hint is bool else ""
        raise ConfigError(f"{name} must be followed by a value{values}; got none.")
    else:
        walk.top(key, rest, written, value, " (command line)")
    return None


def _help(walk: Walk, key: str, rest: list[str], name: str) -> HelpAsked:
    """Check a request for help: `--head.help`, `--head.rule.help KernelScore`."""
    hint = walk.schema[key].hint if key in walk.schema else None
    at = Place(key, f"{'.'.join([key, *rest])}.help", hint, " (command line)")
    if hint is None:
        walk.top(key, rest, at.written, "", at.source)
    for piece in rest:
        if piece != "init_args":
            at = walk.argument(at, piece)
    if at.group:
        return HelpAsked(at.key, at.hint, 0, None)
    if (part := at.part) is None:
        raise ConfigError(f"--{at.written}: {at.key} is not a part; --help describes it.")
    if name:
        return HelpAsked(at.key, walk.named(at, part, name), part.bound, None)
    return HelpAsked(
        at.key, walk.class_at(at), part.bound, described_classes(part.base, part.bound)
    )
