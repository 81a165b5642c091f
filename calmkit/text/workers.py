"""Encodes batches of documents in several processes and returns them in order.

Each process has one thread and its own tokenizer, and imports only the modules it needs. It exits
when its pipe closes, so no worker outlives its parent, however the parent ends. The result does
not depend on the number of processes.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar, cast

from .encoder import EncodedBatch, Encoder
from .raw import RawDocument

__all__ = ["EncodingError", "encoding_in_order", "serve"]

_Task = TypeVar("_Task")

# The worker needs the parent's module search path, with its additions. With -I, no file in the
# current folder hides an installed module.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from calmkit.text.workers import serve; serve()"
_BATCHES_AHEAD = 2
# Errors of a pipe whose other side died: between two messages, or within one.
_BROKEN_PIPE_ERRORS = (EOFError, pickle.UnpicklingError)


class EncodingError(RuntimeError):
    """An encoding process ended unexpectedly; the work done before is kept."""


def encoding_in_order(
    encoder: Encoder,
    batches: Iterable[tuple[_Task, Sequence[RawDocument]]],
    processes: int,
) -> Iterator[tuple[_Task, EncodedBatch]]:
    """Encode batches, and return each result with the task that came with its batch.

    At most three batches per process are held at a time.

    Args:
        encoder: The settings of the encoding.
        batches: Pairs of a task and a batch, read on demand.
        processes: Number of workers; with 0, this process encodes, with the tokenizer's threads.

    Raises:
        EncodingError: If a worker ends unexpectedly.
    """
    if processes == 0:
        encode = encoder.start()
        for task, batch in batches:
            yield task, encode(batch)
        return
    with contextlib.ExitStack() as stack:
        free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for _ in range(processes):
            free.put(stack.enter_context(_Process(encoder)))
        pool = stack.enter_context(ThreadPoolExecutor(processes))
        stack.callback(pool.shutdown, cancel_futures=True)

        def encoded(batch: Sequence[RawDocument]) -> EncodedBatch:
            process = free.get()
            try:
                return process(batch)
            finally:
                free.put(process)

        waiting: deque[tuple[_Task, Callable[[], EncodedBatch]]] = deque()
        for task, batch in batches:
            waiting.append((task, pool.submit(encoded, batch).result))
            if len(waiting) > (1 + _BATCHES_AHEAD) * processes:
                first, result = waiting.popleft()
                yield first, result()
        for first, result in waiting:
            yield first, result()


class _Process:
    """A context manager that runs one encoding process."""

    def __init__(self, encoder: Encoder) -> None:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._requests = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        self._send(encoder)

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()

    def __call__(self, batch: Sequence[RawDocument]) -> EncodedBatch:
        """Encode a batch in the process.

        Raises:
            EncodingError: If the process ends.
        """
        self._send(batch)
        with contextlib.suppress(*_BROKEN_PIPE_ERRORS):
            return pickle.load(self._answers)
        raise self._error_at_end()

    def _send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(message, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            return
        raise self._error_at_end()

    def _error_at_end(self) -> EncodingError:
        return EncodingError(
            f"A process that encodes text ended with code {self._process.wait()}; -9 means that "
            "memory ran out. Run it again with fewer processes: finished work is kept."
        )


def serve() -> None:
    """Main loop of a worker: read an `Encoder`, then batches, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library's output must not mix with the answers
    with contextlib.suppress(*_BROKEN_PIPE_ERRORS, BrokenPipeError):
        encode = pickle.load(requests).start()
        while True:
            pickle.dump(encode(pickle.load(requests)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
