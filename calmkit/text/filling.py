"""Encodes documents in worker processes and writes them to the files of a prepared folder.

Batches are sent out and returned in order. Every few seconds the results are flushed and recorded
in the journal. The timing does not matter: when a killed run resumes, everything after the last
record is cut off.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .documents import DocumentStream
from .encoder import EncodedBatch, Encoder
from .journal import Journal, State
from .raw import BadInputError, RawDocument
from .shards import SideWriter
from .workers import encoding_in_order

__all__ = ["Filling"]

_BATCH_BYTES, _BATCH_DOCUMENTS = 1 << 20, 1024
_SECONDS_BETWEEN_NOTES = 5.0
_LISTED = 20


@dataclass(frozen=True)
class _Task:
    """Bookkeeping of a batch while it is being encoded.

    Attributes:
        sources: Index of the source of each document.
        document: Documents of the last source that are done after this batch.
        position: Bytes read of the last source.
    """

    sources: list[int]
    document: int
    position: int


class Filling:
    """A context manager that writes the files of a folder."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        state: State,
        *,
        dtype: np.dtype,
        shard_tokens: int,
        skip_bad: int,
    ) -> None:
        """Continue from the recorded state.

        Args:
            folder: The prepared folder.
            journal: Its journal.
            state: The recorded state, which is updated.
            dtype: Data type of a token.
            shard_tokens: Tokens in a file.
            skip_bad: Number of bad documents that may be skipped.
        """
        self._journal, self._state, self._skip_bad = journal, state, skip_bad
        self._stack = ExitStack()
        self._writers = {
            side: self._stack.enter_context(
                SideWriter(folder, side, dtype=dtype, shard_tokens=shard_tokens, done=done)
            )
            for side, done in state.sides.items()
        }

    def __enter__(self) -> "Filling":
        """Nothing more happens."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the files."""
        self._stack.close()

    def add(
        self,
        stream: DocumentStream,
        encoder: Encoder,
        *,
        first_source: int,
        processes: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Write the documents of a stream, starting at the recorded place.

        Args:
            stream: The documents.
            encoder: Encodes them.
            first_source: Index in the journal of the stream's first source; earlier streams are
                done.
            processes: Number of encoding processes.
            progress: Called with the index of the source and the number of its bytes done.

        Raises:
            BadInputError: If there are more bad documents than may be skipped.
        """
        state = self._state
        begin = state.source - first_source
        if begin >= len(stream.sources):
            return
        noted = time.monotonic()
        batches = _batches(stream, begin, state.document)
        for task, encoded in encoding_in_order(encoder, batches, processes):
            self._take(task, encoded, first_source)
            progress(state.source, task.position)
            if time.monotonic() - noted >= _SECONDS_BETWEEN_NOTES:
                self._note()
                noted = time.monotonic()
        state.source, state.document = first_source + len(stream.sources), 0
        self._note()

    def paths(self, side: str) -> list[Path]:
        """The files of a side: the token files in order, then the file of offsets.

        Args:
            side: "train" or "validation".
        """
        return self._writers[side].paths()

    def _take(self, task: _Task, encoded: EncodedBatch, first_source: int) -> None:
        state = self._state
        if state.bad + len(encoded.problems) > self._skip_bad:
            self._note()
            problem = encoded.problems[self._skip_bad - state.bad]
            raise BadInputError.beyond(problem, self._skip_bad)
        for side, documents in encoded.sides.items():
            self._writers[side].append(documents)
            state.sides[side] = self._writers[side].done
        for place in encoded.kept:
            source = first_source + task.sources[place]
            state.documents[source] = state.documents.get(source, 0) + 1
        state.copies += encoded.copies
        state.bad += len(encoded.problems)
        state.first_bad += encoded.problems[: _LISTED - len(state.first_bad)]
        state.source, state.document = first_source + task.sources[-1], task.document

    def _note(self) -> None:
        for writer in self._writers.values():
            writer.sync()
        self._journal.note(self._state)


def _batches(
    stream: DocumentStream, source: int, document: int
) -> Iterator[tuple[_Task, list[RawDocument]]]:
    """Group documents into batches large enough to send to a process."""
    batch: list[RawDocument] = []
    sources: list[int] = []
    size, done = 0, document
    for number, raw in stream.raw(source, document):
        done = done + 1 if number == source else 1
        source = number
        batch.append(raw)
        sources.append(number)
        size += len(raw.data)
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_DOCUMENTS:
            yield _Task(sources, done, raw.position), batch
            batch, sources, size = [], [], 0
    if batch:
        yield _Task(sources, done, batch[-1].position), batch
