"""`config.json` of a published checkpoint, each value checked when it is asked for."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import CheckpointFormatError
from .files import CONFIG_FILE, read_json

__all__ = ["Settings"]

# More than any model has; a billion would never be done.
_MOST_LAYERS = 1000

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class Settings:
    """Named values and the file they come from.

    Attributes:
        path: The file.
        values: By name; names that nobody asks for do not matter.
    """

    path: Path = field(default=Path(CONFIG_FILE), compare=False)
    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "Settings":
        """Read `config.json`.

        Raises:
            CheckpointFormatError: If it is missing, damaged, or that of a model of calmkit's.
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
        """A whole number of at least 1, and of layers at most 1000.

        Raises:
            CheckpointFormatError: If it is missing or something else.
        """
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self._wrong(key, "a whole number of at least 1", value)
        if key.endswith("_layers") and value > _MOST_LAYERS:
            # Weights are compared with their sizes; layers have to be made before that.
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
        """Check values that calmkit's parts have built in; a key may be absent or null.

        Raises:
            CheckpointFormatError: If one is another.
        """
        for key, value in fixed.items():
            if self.values.get(key) not in (None, value):
                rule = f"{value!r}, as in the published models; calmkit has no other"
                raise self._wrong(key, rule, self.values[key])

    def build(self, make: Callable[["Settings"], _Part]) -> _Part:
        """Make a part of these settings.

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
