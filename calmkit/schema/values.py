"""Check the types of config values against annotations, and describe types in words.

Values come from YAML, or from an option whose text is read as YAML. Annotations that are not
understood here accept any value; the parser then decides.
"""

import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch

__all__ = ["Part", "alternatives", "is_text", "loaded", "part_of", "shown", "wanted"]

# YAML 1.1 reads 1e-3 as text; the parser reads it as a number.
_NUMBER = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?")
_WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "text",
    Path: "a path", NoneType: "null", dict: "keys and values",
}  # fmt: skip
_LISTS = (list, tuple, set, Sequence, Iterable)


@dataclass(frozen=True)
class Part:
    """A key whose value is a class with its arguments.

    Attributes:
        base: The required base class; None: any class.
        bound: Number of leading arguments that come from elsewhere.
        is_factory: Whether the class is called later, with these arguments.
        optional: Whether null is allowed.
    """

    base: type | None
    bound: int
    is_factory: bool
    optional: bool


def part_of(hint: Any) -> Part | None:
    """The part that an annotation describes; None for plain values."""
    choices = alternatives(hint)
    optional = NoneType in choices
    for choice in choices:
        if get_origin(choice) is Callable:
            sizes, made = get_args(choice)
            bound = len(sizes) if isinstance(sizes, list) else 0
            return Part(made if isinstance(made, type) else None, bound, True, optional)
        plain = (torch.Tensor, enum.Enum, Path, str, int, float, dict, list, tuple, set)
        if isinstance(choice, type) and choice not in (*_WORDS, Any, object, bytes, complex):
            if not (issubclass(choice, plain) or get_origin(choice) or choice in _LISTS):
                return Part(choice, 0, False, optional)
    return None


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; for any other annotation, the annotation itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def loaded(value: Any) -> Any:
    """A value with text parsed as YAML; text that is not YAML stays as it is."""
    import yaml

    if not isinstance(value, str) or not value.strip():
        return value
    if _NUMBER.fullmatch(value.strip()) and not value.strip().lstrip("+-").isdigit():
        try:
            return float(value)
        except ValueError:
            pass
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value


def is_text(value: str) -> bool:
    """Whether it can be encoded as UTF-8, that is, contains no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def wanted(hint: Any, value: Any) -> str:
    """The expected type in words; empty if the value has it."""
    choices = alternatives(hint)
    expected = [_wanted(choice, value) for choice in choices]
    if "" in expected or not expected:
        return ""
    # A config cannot contain a tensor.
    words = dict.fromkeys(word for word in expected if word != "a tensor")
    return " or ".join(words)


def shown(value: Any) -> str:
    """A value for an error message, shortened if it is long."""
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"


def _wanted(hint: Any, value: Any) -> str:
    origin, given = get_origin(hint) or hint, loaded(value)
    if origin is Literal:
        right = value in get_args(hint) or given in get_args(hint)
        return "" if right else "one of " + ", ".join(map(repr, get_args(hint)))
    if origin is torch.Tensor:
        return "" if isinstance(value, torch.Tensor) else "a tensor"
    if origin in _LISTS:
        return _wanted_list(hint, given)
    if origin in (dict, Mapping):
        return "" if isinstance(given, Mapping) else _WORDS[dict]
    if origin is int and isinstance(given, int) and abs(given) >= 2**63:
        return "a whole number of at most 64 bits"
    if origin in _WORDS and not _is_a(origin, value, given):
        return _WORDS[origin]
    return ""


def _is_a(kind: type, value: Any, given: Any) -> bool:
    if kind is str:
        return isinstance(value, str)
    if kind is Path:
        return isinstance(value, Path) or (isinstance(value, str) and _can_be_path(value))
    if kind is float:
        return isinstance(given, int | float) and not isinstance(given, bool)
    if kind is int:
        return isinstance(given, int) and not isinstance(given, bool)
    return isinstance(given, kind)


def _can_be_path(text: str) -> bool:
    """Whether the text is a valid path, with a known home folder if it starts with `~`."""
    if not text.strip() or "\0" in text:
        return False
    try:
        Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
    return True


def _wanted_list(hint: Any, value: Any) -> str:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return "a list"
    members = get_args(hint)
    if get_origin(hint) is tuple and members and members[-1] is not Ellipsis:
        if len(value) != len(members):
            return f"a list of {len(members)}"
        pairs = list(zip(members, value, strict=True))
    else:
        pairs = [(members[0] if members else Any, one) for one in value]
    for member, one in pairs:
        if part_of(member) is None and (expected := wanted(member, one)):
            return f"a list, each entry {expected}"
    return ""
