"""What a long benchmark has measured already, in a file, so that a stopped run can go on."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["KeptRows"]


class KeptRows:
    """Rows of numbers by name, of one setting; written whenever a name is done."""

    def __init__(self, path: Path | None, setting: Mapping[str, Any]) -> None:
        """Read what is there.

        Args:
            path: A JSON file, made if missing; None keeps nothing.
            setting: What all rows depend on.

        Raises:
            ValueError: If the file holds rows of another setting.
        """
        self._path, self._setting = path, json.loads(json.dumps(setting))
        self._rows: dict[str, list[dict[str, Any]]] = {}
        if path is None or not path.exists():
            return
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["setting"] != self._setting:
            raise ValueError(
                f"path must hold rows of this setting, or not be there; {path} has others. Remove "
                "it, or name another file."
            )
        self._rows = content["rows"]

    def get(self, name: str, measure: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The rows of a name: those that are kept, or else measured now, and kept."""
        if name not in self._rows:
            self._rows[name] = measure()
            if self._path is not None:
                content = {"setting": self._setting, "rows": self._rows}
                whole = self._path.with_suffix(".part")
                whole.write_text(json.dumps(content), encoding="utf-8")
                os.replace(whole, self._path)  # never a half-written file
        return self._rows[name]
