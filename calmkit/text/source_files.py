"""Resolves a user's files, folders, patterns and saved datasets to a list of files.

| given | files |
|---|---|
| a file | the file, of one of the formats below |
| a folder | all files of these formats below it, in the order of their paths |
| a folder of `datasets`' `save_to_disk` | the Arrow files in its `state.json`; all splits |
| a pattern such as `web/*.parquet` | the matching files, in the order of the paths |

A `.txt` or `.md` file is one document. A `.jsonl`, `.jsonl.gz` or `.jsonl.zst` file has one
document per line, and a `.parquet` file one per row.
"""

import glob
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .journal import WORK_FOLDER

__all__ = ["FORMATS", "Source", "find_sources"]

FORMATS = (".jsonl.gz", ".jsonl.zst", ".jsonl", ".parquet", ".txt", ".md")

_STATE = "state.json"


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        path: Its path.
        kind: One of `FORMATS`, or ".arrow".
        name: Its name in messages and manifests.
    """

    path: Path
    kind: str
    name: str


def find_sources(given: Sequence[Path | str]) -> list[Source]:
    """Resolve paths to files, each once, in a fixed order.

    Args:
        given: Files, folders and patterns.

    Raises:
        ValueError: If a file is missing or of another format, or a folder or pattern has none.
    """
    found = {}
    for one in given:
        for source in _resolved(str(one)):
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def _resolved(given: str) -> list[Source]:
    path = Path(given)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        kind = _kind(path)
        if kind is None:
            raise ValueError(
                f"data must be a {_formats()} file, or a folder of them; got {given!r}."
            )
        if not path.is_file():
            raise ValueError(
                f"data must be a file that can be read twice; {given!r} is a pipe or a device. "
                "calmkit prepare reads JSON lines from standard input, as -."
            )
        return [Source(path, kind, path.as_posix())]
    if not glob.has_magic(given):
        raise ValueError(f"data must be an existing file or folder; {given!r} is missing.")
    matching = sorted(glob.glob(given, recursive=True))
    if not matching:
        raise ValueError(f"data must be a pattern that some file matches; {given!r} has none.")
    return [source for one in matching for source in _resolved(one)]


def _in_folder(folder: Path) -> list[Source]:
    if (folder / WORK_FOLDER).is_dir():
        raise ValueError(
            f"data must be whole; {str(folder)!r} was begun by calmkit prepare, and is not "
            "finished. Give that command again."
        )
    inside = sorted(_below(folder))
    states = [path for path in inside if path.name == _STATE]
    datasets = {path.parent: files for path in states if (files := _files_of_dataset(path))}
    arrow = itertools.chain.from_iterable(datasets.values())
    found = [Source(path, ".arrow", path.as_posix()) for path in arrow]
    found += [
        Source(path, kind, path.as_posix())
        for path in inside
        if (kind := _kind(path)) is not None and path.parent not in datasets
    ]
    if not found:
        raise ValueError(
            f"data must be a folder with {_formats()} files; there are none in {str(folder)!r}."
        )
    return sorted(found, key=lambda source: source.path)


def _below(folder: Path) -> Iterator[Path]:
    """Files below a folder, through links too; a link to a file that is gone is one."""

    def refuse(error: OSError) -> None:
        raise error  # a folder that cannot be read would be left out in silence

    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        new = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if name != WORK_FOLDER and real not in seen:
                seen.add(real)
                new.append(name)
        folders[:] = new
        paths = (Path(place, name) for name in names)
        yield from (path for path in paths if path.is_file() or not path.exists())


def _files_of_dataset(state: Path) -> list[Path]:
    """The files that a saved dataset lists; other files in its folder may be a cache."""
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        names: Iterable[str] = [file["filename"] for file in content["_data_files"]]
    except (ValueError, KeyError, TypeError):
        return []  # another program's state.json
    return [state.parent / name for name in names]


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind in FORMATS if name.endswith(kind)), None)


def _formats() -> str:
    return ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
