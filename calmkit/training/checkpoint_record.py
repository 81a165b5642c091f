"""The record of a checkpoint, `training.json`, protected by a checksum.

The record contains the SHA-256 of its own content. Without it, a changed digit could silently
resume a run from another step, or with another curve.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "RECORD",
    "UNREADABLE",
    "CheckpointError",
    "damaged",
    "read_record",
    "seal",
    "unreadable",
]

_FORMAT = 2

RECORD = "training.json"
"""Name of the file."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors that reading a missing or malformed file can raise."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


def read_record(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's record.

    Raises:
        CheckpointError: If it is missing, changed or of another format.
    """
    try:
        content = json.loads((path / RECORD).read_text(encoding="utf-8"))
        found = content["format"]
        if found == _FORMAT and content["checksum"] != _checksum(content):
            raise damaged(path, f"{RECORD} does not match its checksum")
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if found != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path} must have format {_FORMAT}, which this version of calmkit reads; "
            f"got {found!r}. End the run with the version that began it, or begin another one in "
            "another directory."
        )
    return content


def seal(record: Mapping[str, Any]) -> str:
    """A record as JSON, with its format and its checksum."""
    content = {"format": _FORMAT, **record}
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1)


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a record's content, independent of white space."""
    covered = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def unreadable(path: Path, error: BaseException) -> CheckpointError:
    """The error for a checkpoint that raised one of `UNREADABLE`."""
    if isinstance(error, FileNotFoundError):
        return damaged(path, f"{Path(error.filename).name} is missing")
    return damaged(path, f"{RECORD} cannot be read")


def damaged(path: Path, reason: str) -> CheckpointError:
    """The error for a damaged checkpoint, with the reason."""
    return CheckpointError(
        f"checkpoint {path} is damaged: {reason}. Delete this folder to resume from the one "
        "before, or to start again if there is none."
    )
