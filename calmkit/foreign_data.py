"""Parsing of untrusted JSON and YAML, within limits and as plain data only.

A text of a few hundred bytes can be nested so deeply that a parser overflows its stack, or can
expand, through YAML anchors, to more values than fit into memory. Files written by calmkit are far
below the limits here.
"""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yaml import Node

__all__ = ["MOST_NESTED", "ForeignDataError", "check_nesting", "parse_json", "parse_yaml"]

MOST_NESTED = 100
_MOST_CHARACTERS = 10**6
_MOST_VALUES = 10**5
_MERGE = "tag:yaml.org,2002:merge"


class ForeignDataError(ValueError):
    """A text is not JSON or YAML within the limits; the message has the reason."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ForeignDataError: If it is not JSON, or nested more than 100 deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # a syntax error, bytes that are not text, or too many digits
        raise ForeignDataError(f"it is not JSON: {error}") from None
    check_nesting(value)
    return value


def check_nesting(value: object) -> None:
    """Check that lists and mappings are nested at most 100 deep.

    Raises:
        ForeignDataError: If they are not.
    """
    level = [value]
    for _ in range(MOST_NESTED):
        level = [
            inside
            for outer in level
            for inside in _entries(outer)
            if isinstance(inside, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def parse_yaml(text: str) -> Any:
    """Parse YAML without Python tags; values of an anchor are counted at each use.

    Raises:
        ForeignDataError: If it is not YAML, is nested more than 100 deep, has more than a million
            characters or 100 000 values, repeats a key, or merges mappings.
    """
    import yaml

    if len(text) > _MOST_CHARACTERS:
        raise ForeignDataError(f"it must have at most {_MOST_CHARACTERS} characters.")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node)
        return loader.construct_document(node)
    except RecursionError:
        raise _too_deep() from None
    except ForeignDataError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date
        raise ForeignDataError(f"it is not YAML: {error}") from None


def _entries(value: object) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_nodes(root: "Node") -> None:
    import yaml

    level, count = [root], 0
    for _ in range(MOST_NESTED + 1):
        inner: list[Node] = []
        for node in level:
            if isinstance(node, yaml.MappingNode):
                keys = [key for key, _ in node.value]
                _check_keys(keys)
                inner += [*keys, *(value for _, value in node.value)]
            elif isinstance(node, yaml.SequenceNode):
                inner += node.value
            if count + len(inner) > _MOST_VALUES:
                raise ForeignDataError(f"it must hold at most {_MOST_VALUES} values.")
        level, count = inner, count + len(inner)
        if not level:
            return
    raise _too_deep()


def _check_keys(keys: list[Any]) -> None:
    names = [str(key.value) for key in keys]
    for key, name in zip(keys, names, strict=True):
        if key.tag == _MERGE:
            raise ForeignDataError("it must not merge mappings with <<; write the keys out.")
        if names.count(name) > 1:
            raise ForeignDataError(f"{name!r} is given twice; rename or remove one.")


def _too_deep() -> ForeignDataError:
    return ForeignDataError(f"it is nested more than {MOST_NESTED} deep.")
