"""Documents through worker processes into the files of a prepared folder.

Batches of documents go out and come back in their order. Every few seconds what came back is
flushed and noted; the moments do not matter, since whatever is behind the last note is cut off
when a killed run goes on.
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
    """What is remembered of a batch while it is away.

    Attributes:
        sources: For each document the number of its source.
        document: How many documents of the last source are done with this batch.
        position: Bytes of the last source that are read.
    """

    sources: list[int]
    document: int
    position: int


class Filling:
    """Context in which the files of a folder are written."""

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
        """Go on behind what is noted.

        Args:
            folder: The prepared folder.
            journal: Its notes.
            state: As they stand; is kept up to date.
            dtype: Of a token.
            shard_tokens: Tokens in a file.
            skip_bad: How many bad documents may be left out.
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
        """Write the documents of a stream, from the place on that is noted.

        Args:
            stream: The documents.
            encoder: Encodes them.
            first_source: The number that the stream's first source has in the notes; the streams
                before are done.
            processes: How many encode.
            progress: Is told the number of the source, and the bytes of it that are done.

        Raises:
            BadInputError: If there are more bad documents than may be left out.
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
        """The files of a side: those of tokens in their order, and last that of the offsets.

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
    """Documents in groups that are worth sending to a process."""
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
