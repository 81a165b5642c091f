"""Config errors with messages that fit on a screen, and the sources of config values."""

import argparse
import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calmkit.spelling import nearest

__all__ = ["ConfigError", "Source", "UnknownKeyError", "explain"]


# A message must fit on a screen, even if a user's modules have many classes.
_MOST_LINES = 8


class ConfigError(ValueError):
    """An error in a config or on the command line, raised before anything is computed.

    Attributes:
        allowed: The valid values, if they can be listed.
    """

    def __init__(self, text: str, *, wrong: str = "", allowed: Iterable[str] = ()) -> None:
        """Compose the message.

        Args:
            text: The error.
            wrong: The misspelt name, to be compared with `allowed`.
            allowed: The valid values.
        """
        self.allowed = tuple(allowed)
        lines = [text]
        if (meant := nearest(wrong, self.allowed)) is not None:
            lines.append(f"  did you mean: {meant}")
        if self.allowed:
            listed = textwrap.fill(
                ", ".join(self.allowed),
                88,
                break_long_words=False,
                break_on_hyphens=False,
                max_lines=_MOST_LINES,
                placeholder=" ...",
            )
            lines.append("  allowed: " + listed.replace("\n", "\n           "))
        super().__init__("\n".join(lines))

    def at(self, where: str) -> "ConfigError":
        """The same error, prefixed with its location."""
        error = ConfigError(f"{where}: {self}")
        error.allowed = self.allowed
        return error


class UnknownKeyError(ConfigError):
    """A key that a config does not have, and that is not below one of its keys either.

    Attributes:
        key: The key.
        source: Its source, in brackets.
        below: Keys of groups and parts that end in its name.
    """

    def __init__(
        self,
        key: str,
        source: str,
        allowed: Iterable[str],
        *,
        below: Sequence[str] = (),
        kind: str = "a known key",
    ) -> None:
        """Compose the message, which says that the key is not `kind`."""
        text = f"{key} is not {kind}{source}."
        if below:
            text += f"\n  did you mean: {' or '.join(below)}"
        super().__init__(text, wrong="" if below else key, allowed=allowed)
        self.key, self.source, self.below = key, source, below


@dataclass(frozen=True)
class Source:
    """Config values and their origin, for error messages.

    Attributes:
        name: Name of the origin: a file, or the command line.
        values: The values, nested as in the file.
        is_preset: Whether the values come from a preset rather than from the user.
    """

    name: str
    values: Mapping[str, Any]
    is_preset: bool = False

    @staticmethod
    def of_options(options: Sequence[str]) -> "Source":
        """The command line: `--key value` and `--key=value`."""
        values = {}
        for option, following in itertools.pairwise([*options, ""]):
            if option.startswith("--"):
                key, equals, value = option.partition("=")
                values[key.removeprefix("--")] = value if equals else following
        return Source("command line", values)

    @staticmethod
    def of_file(path: Path, name: str | None = None) -> "Source":
        """A YAML file.

        Args:
            path: The file.
            name: Name of the source; its path if None.

        Raises:
            ConfigError: If the file cannot be read, is not YAML, or holds no mapping.
        """
        import yaml

        try:
            values = _read_yaml(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"config {path} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise ConfigError(f"config {path} must be UTF-8 text; it is not.") from None
        except (RecursionError, ValueError):
            raise ConfigError(
                f"config {path} must not be nested so deeply, nor hold numbers so long."
            ) from None
        except yaml.YAMLError as error:
            message = textwrap.indent(str(error).replace('"<unicode string>", ', ""), "  ")
            raise ConfigError(f"config {path} is not valid YAML:\n{message}") from None
        if not isinstance(values, Mapping):
            found = "nothing" if values is None else f"a {type(values).__name__}"
            raise ConfigError(f"config {path} must hold keys and values; it holds {found}.")
        return Source(name or str(path), values)


def _read_yaml(text: str) -> object:
    """Like `yaml.safe_load`, but refuse duplicate keys."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for place, key in enumerate(keys):
                if key in keys[:place]:
                    mark = node.value[place][0].start_mark
                    raise yaml.YAMLError(
                        f"line {mark.line + 1}: {key!r} is given twice; rename or remove one."
                    )
            return super().construct_mapping(node, deep)

    return yaml.load(text, Loader)


def explain(error: Exception) -> ConfigError:
    """Shorten an error from jsonargparse, or from a class that it called.

    Args:
        error: The error. Common mistakes never get here, since `schema` detects them first.
    """
    message = re.split(r"\.? Got value: |\n *Given value", str(error).strip())[0]
    if untyped := re.search(
        r"Parameter '(\w+)' from '([\w.]+?)(?:\.__init__)?' does not", message
    ):
        name, made = untyped.groups()
        return ConfigError(
            f"{made} must annotate its argument {name}, so that its value can be parsed, such as "
            f"`{name}: int`; it has no annotation."
        )
    if unlike := re.search(
        r'Parser key "([\w.]+)".*does not implement protocol (\w+)', message, re.S
    ):
        key, protocol = unlike.groups()
        return ConfigError(
            f"{key}: the class must have the methods of a {protocol}, with its arguments and "
            "results annotated as there."
        )
    # jsonargparse puts the annotation before the error in the value.
    message = re.sub(r"Type \S.*? expects a function or a callable class: ", "", message)
    lines = [textwrap.shorten(line, 300) for line in message.splitlines()[:6]] or [
        "no reason given"
    ]
    if not isinstance(error, argparse.ArgumentError | TypeError | ValueError):
        lines[0] = f"{type(error).__name__}: {lines[0]}"
    if key := re.match(r'Parser key "(\w+)', message):
        lines.append(f"--{key[1]}.help lists its arguments.")
    return ConfigError("\n  ".join(lines))
