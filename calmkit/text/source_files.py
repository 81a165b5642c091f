"""From what a user names to a list of files: files, folders, patterns, saved datasets.

| given | files |
|---|---|
| a file | the file, of one of the formats below |
| a folder | all files of these formats below it, in the order of their paths |
| a folder of `datasets`' `save_to_disk` | its Arrow files, by its `state.json`; all splits |
| a pattern such as `web/*.parquet` | what it matches, in the order of the paths |

The formats: `.txt` and `.md`, a document each; `.jsonl`, `.jsonl.gz` and `.jsonl.zst`, a document
a line; `.parquet`, a document a row.
"""

import glob
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FORMATS", "Source", "find_sources"]

FORMATS = (".jsonl.gz", ".jsonl.zst", ".jsonl", ".parquet", ".txt", ".md")

_STATE = "state.json"


@dataclass(frozen=True)
class Source:
    """A file to read.

    Attributes:
        path: Where it is.
        kind: One of `FORMATS`, or ".arrow".
        name: What it is called in messages and manifests.
    """

    path: Path
    kind: str
    name: str


def find_sources(given: Sequence[Path | str]) -> list[Source]:
    """The files that are meant, each once, in a fixed order.

    Args:
        given: Files, folders and patterns.

    Raises:
        ValueError: If a file is missing or of another format, or a folder or pattern has none.
    """
    found = {}
    for one in given:
        for source in _meant_by(str(one)):
            found.setdefault(source.path.resolve(), source)
    return list(found.values())


def _meant_by(given: str) -> list[Source]:
    path = Path(given)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        kind = _kind(path)
        if kind is None:
            raise ValueError(
                f"data must be a {_formats()} file, or a folder of them; got {given!r}."
            )
        return [Source(path, kind, path.as_posix())]
    if not glob.has_magic(given):
        raise ValueError(f"data must be an existing file or folder; {given!r} is missing.")
    matching = sorted(glob.glob(given, recursive=True))
    if not matching:
        raise ValueError(f"data must be a pattern that some file matches; {given!r} has none.")
    return [source for one in matching for source in _meant_by(one)]


def _in_folder(folder: Path) -> list[Source]:
    inside = sorted(path for path in folder.rglob("*") if path.is_file())
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


def _files_of_dataset(state: Path) -> list[Path]:
    """The files that a saved dataset names: others beside them may be a library's cache."""
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
