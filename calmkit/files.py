"""Files that are complete or absent: atomic replacement, flushing to disk, digests."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from calmkit.disk import writing

__all__ = [
    "file_digest",
    "flush",
    "partial_of",
    "replace_file",
    "replace_files",
    "replacing",
]


def partial_of(path: Path) -> Path:
    """The temporary name, next to `path`, under which it is written before it is renamed."""
    return path.with_name(f".partial-{path.name}")


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file under another name, flush it to disk and rename it."""
    replace_files({path: content})


def replace_files(contents: Mapping[Path, str | bytes]) -> None:
    """Replace files in order, once all are on the disk; if the disk is full, none is replaced."""
    with replacing(*contents) as partials:
        for partial, content in zip(partials, contents.values(), strict=True):
            data = content.encode("utf-8") if isinstance(content, str) else content
            partial.write_bytes(data)


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[list[Path]]:
    """Context with a temporary name next to each path; at its end the files are renamed.

    All are flushed to disk before the first is renamed. If anything fails before that, the old
    files do not change. Files that are not renamed are removed.

    Raises:
        WriteError: If they cannot be written; names the folder.
    """
    partials = [partial_of(path) for path in paths]
    try:
        with writing(paths[0].parent, kept="older files are as they were"):
            yield partials
            for partial in partials:
                flush(partial)
            for partial, path in zip(partials, paths, strict=True):
                os.replace(partial, path)
    except BaseException:
        for partial in partials:
            partial.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Flush a file or folder to disk."""
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
