"""Processes that work side by side, and none of which outlives the one that started them.

Each gets one task at a time over a pipe and sends back what it is told on the way, and the result.
A task whose process dies (of a full memory, say) is lost; the others go on.

Ctrl-C reaches the parent alone, which asks the workers to stop: each is interrupted once, wherever
Ctrl-C reaches a terminal's processes, so that a training ends its step and writes a checkpoint.
A worker whose parent was killed ends itself.
"""

import _thread
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

__all__ = ["Died", "Pool"]

# For the step at hand and a checkpoint.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Died:
    """In place of a result: the process of a task ended.

    Attributes:
        reason: How, in words.
    """

    reason: str


@dataclass(eq=False)
class _Worker:
    """A process, and what the parent has of it.

    Attributes:
        process: The process.
        tasks: Tasks go in, messages and results come out.
        leash: Closed to have it stop.
        task: What it is at.
    """

    process: SpawnProcess
    tasks: Connection
    leash: Connection
    task: Any = None


class Pool:
    """Context in which tasks are done by worker processes."""

    def __init__(
        self,
        processes: int,
        work: Callable[[Any, Callable[[str], None]], Any],
        *,
        begin: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        """Prepare; processes start when there is something to do.

        Args:
            processes: How many at most.
            work: Called in a worker with a task and with a function that sends a message.
            begin: Called first in each worker with its place, from 0.
            tell: Is told the workers' messages, and what happens to them.
        """
        self._workers: list[_Worker | None] = [None] * processes
        self._work, self._begin, self._tell = work, begin, tell

    def __enter__(self) -> "Pool":
        """Nothing happens yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers; those that are at work are interrupted and given time to end well."""
        started = [worker for worker in self._workers if worker is not None]
        try:
            if any(worker.task is not None and worker.process.is_alive() for worker in started):
                self._tell("Runs end their step and are kept; Ctrl-C again ends them at once.")
            for worker in started:
                worker.leash.close()
                worker.tasks.close()
            until = time.monotonic() + _PATIENCE_SECONDS
            for worker in started:
                worker.process.join(max(0.0, until - time.monotonic()))
        finally:
            for worker in started:
                worker.process.kill()
                worker.process.join()

    def do(self, tasks: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        """Each task with its result as soon as it is there; a `Died` where its process ended."""
        left = deque(tasks)
        while True:
            for place, worker in enumerate(self._workers):
                if left and (worker is None or worker.task is None):
                    self._give(place, left.popleft())
            busy = [worker for worker in self._workers if worker and worker.task is not None]
            if not busy:
                return
            ready = wait([worker.tasks for worker in busy])
            for worker in busy:
                if worker.tasks in ready:
                    yield from self._answer(worker)

    def _give(self, place: int, task: Any) -> None:
        """Send a task to the worker of a place; a new one where there is none alive."""
        worker = self._workers[place]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[place] = self._start(place)
        worker.task = task
        with contextlib.suppress(OSError):  # it has just died: its answer will tell
            worker.tasks.send(task)

    def _answer(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        """Read one message of a worker; if it is a result, its task is done."""
        kind: str
        content: Any
        try:
            kind, content = worker.tasks.recv()
        except (EOFError, OSError):
            worker.process.join()
            kind, content = "result", Died(_ending(worker.process.exitcode))
        if kind == "message":
            self._tell(content)
            return
        task, worker.task = worker.task, None
        yield task, content

    def _start(self, place: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        listens, leash = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve, args=(theirs, listens, self._work, self._begin, place), daemon=True
        )
        with _interrupts_for_the_parent_alone():
            process.start()
        theirs.close()
        listens.close()
        return _Worker(process, ours, leash)


def _serve(
    tasks: Connection,
    leash: Connection,
    work: Callable[[Any, Callable[[str], None]], Any],
    begin: Callable[[int], None],
    place: int,
) -> None:
    """What a worker does until there is nothing more to do."""
    ended, lock = threading.Event(), threading.Lock()
    threading.Thread(target=_watch, args=(leash, ended, lock), daemon=True).start()
    # What the parent does not wait for any more is not told.
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        try:
            begin(place)
            while True:
                task = tasks.recv()
                result = work(task, lambda message: tasks.send(("message", message)))
                tasks.send(("result", result))
        finally:
            with lock:  # an interrupt after this would find nobody to catch it
                ended.set()


def _watch(leash: Connection, ended: threading.Event, lock: threading.Lock) -> None:
    """Interrupt this process when it is asked to stop, and end it when its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if parent.sentinel not in wait([leash, parent.sentinel]):
        with lock:
            if not ended.is_set():
                _thread.interrupt_main()
        wait([parent.sentinel])
    os._exit(1)


@contextlib.contextmanager
def _interrupts_for_the_parent_alone() -> Iterator[None]:
    """Processes that are started inside do not receive Ctrl-C; it waits for the end of the block.

    A set of blocked signals is inherited, and holds from the first moment on: an interrupt while
    a new process still imports would print a traceback for each. Windows has no such thing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which unblocks what it finds blocked
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = "; is there enough memory?" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with exit code {code}"
