"""The files of one side of a prepared folder, written sequentially.

Appended data is durable after the next `sync`, when the caller records `done`. To resume, pass the
recorded `done`: everything written after it is cut off.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .encoder import EncodedSide

__all__ = ["Done", "SideWriter"]


@dataclass(frozen=True)
class Done:
    """The progress of a side.

    Attributes:
        documents: Documents written.
        tokens: Tokens written.
        characters: Characters of their text.
    """

    documents: int = 0
    tokens: int = 0
    characters: int = 0


class SideWriter:
    """A context manager that writes the documents of a side."""

    def __init__(
        self, folder: Path, side: str, *, dtype: np.dtype, shard_tokens: int, done: Done
    ) -> None:
        """Continue after the recorded progress.

        Args:
            folder: The prepared folder.
            side: "train" or "validation".
            dtype: Data type of a token.
            shard_tokens: Tokens in a file.
            done: The recorded progress.

        Raises:
            ValueError: If the files are shorter than recorded.
        """
        self.done = done
        self._folder, self._side, self._all = folder, side, f"{side}-[0-9]*.bin"
        self._dtype, self._shard_tokens = dtype, shard_tokens
        whole, rest = divmod(done.tokens, shard_tokens)
        offsets, shard = folder / f"{side}-documents.bin", self._path(whole)
        size = 8 * (done.documents + 1) if done.documents else 0
        _check_size(offsets, size)
        _check_size(shard, rest * dtype.itemsize)
        self._offsets = _open_truncated(offsets, size)
        self._shard = _open_truncated(shard, rest * dtype.itemsize) if rest else None
        for later in self._shards(whole + bool(rest)):
            later.unlink()
        if not done.documents:
            self._offsets.write(np.zeros(1, "<i8").tobytes())

    def __enter__(self) -> "SideWriter":
        """Return the writer; its files are already open."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        for file in self._open():
            file.close()

    def append(self, encoded: EncodedSide) -> None:
        """Append documents."""
        done = self.done
        self._offsets.write((done.tokens + np.cumsum(encoded.lengths)).astype("<i8").tobytes())
        tokens, place = encoded.tokens, done.tokens
        while len(tokens):
            number, used = divmod(place, self._shard_tokens)
            if self._shard is None:
                self._shard = self._path(number).open("wb")
            part, tokens = np.split(tokens, [self._shard_tokens - used])
            self._shard.write(part.tobytes())
            place += len(part)
            if place % self._shard_tokens == 0:
                _flush(self._shard)
                self._shard.close()
                self._shard = None
        self.done = Done(
            done.documents + len(encoded.lengths), place, done.characters + encoded.characters
        )

    def sync(self) -> None:
        """Flush all files to the disk."""
        for file in self._open():
            _flush(file)

    def paths(self) -> list[Path]:
        """The token files in order, then the file of offsets."""
        return [*self._shards(0), self._folder / f"{self._side}-documents.bin"]

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._side}-{number:05d}.bin"

    def _shards(self, number: int) -> list[Path]:
        """The existing token files, starting at an index."""
        found = {int(path.stem.rpartition("-")[2]): path for path in self._folder.glob(self._all)}
        return [found[one] for one in sorted(found) if one >= number]

    def _open(self) -> list[BinaryIO]:
        return [file for file in (self._offsets, self._shard) if file is not None]


def _check_size(path: Path, size: int) -> None:
    """Refuse a file that is shorter than recorded."""
    found = path.stat().st_size if path.exists() else 0
    if found < size:
        raise ValueError(
            f"{path} must have at least {size} bytes, to be continued; it has {found}. Remove the "
            "folder and prepare the text again."
        )


def _open_truncated(path: Path, size: int) -> BinaryIO:
    """Open a file for writing, truncated to a size; a new file if the size is 0."""
    if size == 0:
        return path.open("wb")
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
