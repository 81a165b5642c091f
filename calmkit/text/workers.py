"""Batches of documents encoded by several processes, and given back in their order.

Each process has one thread and a tokenizer of its own, and imports no more than it needs. It ends
when its pipe closes, so none outlives the one that started it, however that ends. Nothing depends
on how many there are.
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

# A module search path of its own would miss what the parent added to its path; and with -I, no
# file in the current folder hides an installed module.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from calmkit.text.workers import serve; serve()"
_AHEAD = 2
# How a pipe ends whose other side died: between two messages, or within one.
_CUT_SHORT = (EOFError, pickle.UnpicklingError)


class EncodingError(RuntimeError):
    """A process that encodes ended by itself; what was done before is kept."""


def encoding_in_order(
    encoder: Encoder,
    batches: Iterable[tuple[_Task, Sequence[RawDocument]]],
    processes: int,
) -> Iterator[tuple[_Task, EncodedBatch]]:
    """Encode batches, each given with what the caller wants back beside the result.

    At most three batches for each process are held at a time.

    Args:
        encoder: What is needed to encode.
        batches: Batches; read as they are needed.
        processes: How many work; with 0, this one does, with the tokenizer's own threads.

    Raises:
        EncodingError: If a process ends by itself.
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
            if len(waiting) > (1 + _AHEAD) * processes:
                first, result = waiting.popleft()
                yield first, result()
        for first, result in waiting:
            yield first, result()


class _Process:
    """Context in which a process encodes."""

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
        """Have a batch encoded.

        Raises:
            EncodingError: If the process ends.
        """
        self._send(batch)
        with contextlib.suppress(*_CUT_SHORT):
            return pickle.load(self._answers)
        raise self._ended()

    def _send(self, message: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(message, self._requests, pickle.HIGHEST_PROTOCOL)
            self._requests.flush()
            return
        raise self._ended()

    def _ended(self) -> EncodingError:
        return EncodingError(
            f"A process that encodes text ended with code {self._process.wait()}; -9 means that "
            "memory ran out. Run the same again, with fewer processes: what was done is kept."
        )


def serve() -> None:
    """What a process does: read an `Encoder`, then batches, until its pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library may print must not come between
    with contextlib.suppress(*_CUT_SHORT, BrokenPipeError):
        encode = pickle.load(requests).start()
        while True:
            pickle.dump(encode(pickle.load(requests)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
