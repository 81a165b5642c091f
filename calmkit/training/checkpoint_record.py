"""What a checkpoint says of itself, `training.json`: it vouches for all that it says.

The record holds the SHA-256 of its own content. Otherwise a changed digit in it would send a run
on from another step, or with another curve, and nobody would know.
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
"""What a file that is missing or holds something else can raise when it is read."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


def read_record(path: Path) -> dict[str, Any]:
    """The content of a checkpoint's record.

    Args:
        path: The checkpoint's folder.

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
    """A record as JSON, with its format and its checksum.

    Args:
        record: Anything JSON can hold.
    """
    content = {"format": _FORMAT, **record}
    return json.dumps({**content, "checksum": _checksum(content)}, indent=1)


def _checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of all that a record says, whatever the white space between it."""
    said = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def unreadable(path: Path, error: BaseException) -> CheckpointError:
    """The refusal of a checkpoint that raised one of `UNREADABLE`."""
    if isinstance(error, FileNotFoundError):
        return damaged(path, f"{Path(error.filename).name} is missing")
    return damaged(path, f"{RECORD} cannot be read")


def damaged(path: Path, what: str) -> CheckpointError:
    """The refusal of a checkpoint, with a clause that says what is wrong."""
    return CheckpointError(
        f"checkpoint {path} is damaged: {what}. Delete this folder to resume from the one "
        "before, or to start again if there is none."
    )
