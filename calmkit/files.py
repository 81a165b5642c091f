"""Files that are whole or absent: atomic replacement, flushing to disk, digests."""

import hashlib
import os
from pathlib import Path

__all__ = ["file_digest", "flush", "partial_of", "replace_file"]


def partial_of(path: Path) -> Path:
    """The name beside `path` under which it is written before it is renamed."""
    return path.with_name(f".partial-{path.name}")


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file under another name, flush it to disk and rename it."""
    partial = partial_of(path)
    with partial.open("wb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def flush(path: Path) -> None:
    """Make sure that a file or folder has reached the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
