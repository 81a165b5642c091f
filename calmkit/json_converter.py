"""Convert results to JSON and back: one converter for all, based on dataclass fields.

    text = to_json(result)                     unknown numbers become null
    result = from_json(text, ComparisonResult) exactly the fields of the class, or an error

The JSON is strict: NaN and infinities are refused in both directions. Reading is strict too: an
unknown field, a missing field or a value of the wrong type is refused with its path, such as
`$.variants[0].runs[1].steps`. Only `DocumentScores` has a custom, more compact format.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from calmkit.extras import require
from calmkit.foreign_data import ForeignDataError, parse_json
from calmkit.metrics import DocumentScores

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["from_json", "from_plain", "to_json", "to_plain"]

T = TypeVar("T")


def to_json(value: Any) -> str:
    """Convert a result to strict JSON.

    Raises:
        ValueError: If a number in it is not finite.
    """
    return json.dumps(to_plain(value), indent=1, allow_nan=False, ensure_ascii=False)


def to_plain(value: Any) -> Any:
    """Convert a result to mappings, lists and values."""
    return _converter().unstructure(value)


def from_json(text: str | bytes, kind: type[T]) -> T:
    """Read the JSON written by `to_json`.

    Raises:
        ValueError: If it is not such JSON; names the first wrong place.
    """
    try:
        content = parse_json(text)
    except ForeignDataError as error:
        raise _refused(str(error)) from None
    return from_plain(content, kind)


def from_plain(content: Any, kind: type[T]) -> T:
    """Convert the mappings, lists and values of `to_plain` back to a result.

    Raises:
        ValueError: As in `from_json`.
    """
    from cattrs import transform_error

    try:
        return _converter().structure(content, kind)
    except Exception as error:  # cattrs raises exception groups of any kind
        raise _refused(transform_error(error, format_exception=_reason)[0]) from None


def _refused(reason: str) -> ValueError:
    return ValueError(
        f"results must be JSON as written by `calmkit compare`; {reason.removesuffix('.')}."
    )


def _reason(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return f"required field missing: {error.args[0]}"
    return f"{error}".partition("\n")[0].removesuffix(".")


@functools.cache
def _converter() -> "Converter":
    require("cattrs", "A result as JSON")
    from cattrs import Converter

    converter = Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook_factory(
        is_dataclass, lambda kind: _every_field(kind, converter)
    )
    converter.register_unstructure_hook(DocumentScores, DocumentScores.to_dict)
    converter.register_structure_hook(
        DocumentScores, lambda content, _: DocumentScores.from_dict(content)
    )
    return converter


def _exactly(value: Any, kind: type) -> Any:
    """Check the type of a value; a float may be written as a whole number."""
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        found = str(value)[:40]
        raise TypeError(f"expected {'finite ' * (kind is float)}{kind.__name__}, got {found}")
    return value


def _every_field(kind: Any, converter: "Converter") -> Callable[[Any, Any], Any]:
    """A reader for a dataclass that requires every field, including those with defaults."""
    from cattrs.gen import make_dict_structure_fn

    read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
    defaults = [entry.name for entry in fields(kind) if entry.default is not MISSING]

    def structure(content: Any, _: Any) -> Any:
        if not isinstance(content, Mapping):
            found = type(content).__name__
            raise TypeError(f"expected the fields of {kind.__name__}, got {found}")
        for name in defaults:
            if name not in content:
                raise KeyError(name)
        return read(content, kind)

    return structure
