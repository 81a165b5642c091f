"""`config.json` of a published checkpoint; each value is checked on access."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import CheckpointFormatError
from .files import CONFIG_FILE, read_json

__all__ = ["Settings"]

# More than any model has; building a billion layers would never end.
_MOST_LAYERS = 1000

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Settings:
    """Named values and the file they come from.

    Attributes:
        path: The file.
        values: Values by name; unused names are ignored.
    """

    path: Path = field(default=Path(CONFIG_FILE), compare=False)
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "Settings":
        """Read `config.json`.

        Raises:
            CheckpointFormatError: If it is missing, damaged, or in calmkit's own format.
        """
        path = folder / CONFIG_FILE
        values = read_json(path)
        if "class_path" in values:
            raise CheckpointFormatError(
                f"{path} must be in the published format; it is in calmkit's own, which "
                "calmkit.load reads."
            )
        return cls(path, values)

    def size(self, key: str) -> int:
        """A whole number of at least 1; a number of layers must be at most 1000.

        Raises:
            CheckpointFormatError: If it is missing or something else.
        """
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(key, "a whole number of at least 1", value)
        if key.endswith("_layers") and value > _MOST_LAYERS:
            # Other sizes are compared with the weights, but layers are built before that.
            raise self._wrong(key, f"at most {_MOST_LAYERS}", value)
        return value

    def number(self, key: str) -> float:
        """A finite number that is not negative.

        Raises:
            CheckpointFormatError: If it is missing or something else.
        """
        value = self._get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:
            raise self._wrong(key, "a number that is not negative", value)
        return float(value)

    def require(self, **fixed: Any) -> None:
        """Check values that are fixed in calmkit's parts; a key may be absent or null.

        Raises:
            CheckpointFormatError: If a value differs.
        """
        for key, value in fixed.items():
            if self.values.get(key) not in (None, value):
                rule = f"{value!r}, as in the published models; calmkit has no other"
                raise self._wrong(key, rule, self.values[key])

    def build(self, make: Callable[["Settings"], _Part]) -> _Part:
        """Build a part from these settings.

        Raises:
            CheckpointFormatError: If its constructor refuses a value; names the file.
        """
        try:
            return make(self)
        except CheckpointFormatError:
            raise
        except ValueError as error:
            raise CheckpointFormatError(f"{self.path}: {error}") from None

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise CheckpointFormatError(f"{self.path}: {key} must be there; it is missing.")
        return self.values[key]

    def _wrong(self, key: str, rule: str, value: Any) -> CheckpointFormatError:
        return CheckpointFormatError(f"{self.path}: {key} must be {rule}; got {value!r}.")
