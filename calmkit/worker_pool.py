"""A pool of worker processes, none of which outlives its parent.

Each worker receives one task at a time over a pipe and sends back messages and the result. If a
worker dies, for example out of memory, its task is lost and the other workers continue.

Only the parent receives Ctrl-C. It then interrupts each worker once, so that a training finishes
its step and writes a checkpoint. A worker whose parent was killed ends itself.
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

# Enough for the current step and a checkpoint.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Died:
    """The result of a task whose process ended.

    Attributes:
        reason: How the process ended, in words.
    """

    reason: str


@dataclass(eq=False)
class _Worker:
    """A worker process with the parent's ends of its pipes.

    Attributes:
        process: The process.
        tasks: Pipe that sends tasks and receives messages and results.
        leash: Pipe that is closed to stop the worker.
        task: The current task.
    """

    process: SpawnProcess
    tasks: Connection
    leash: Connection
    task: Any = None


class Pool:
    """Context manager that runs tasks in worker processes."""

    def __init__(
        self,
        processes: int,
        work: Callable[[Any, Callable[[str], None]], Any],
        *,
        begin: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> None:
        """Create the pool; processes start with their first tasks.

        Args:
            processes: Maximum number of processes.
            work: Called in a worker with a task and a function that sends a message.
            begin: Called first in each worker, with its index.
            tell: Receives the workers' messages and notes about the workers.
        """
        self._workers: list[_Worker | None] = [None] * processes
        self._work, self._begin, self._tell = work, begin, tell

    def __enter__(self) -> "Pool":
        """Return the pool, which has no processes yet."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers; busy ones are interrupted and get time to write a checkpoint."""
        started = [worker for worker in self._workers if worker is not None]
        try:
            if any(worker.task is not None and worker.process.is_alive() for worker in started):
                self._tell("Runs finish their step and are saved; Ctrl-C again ends them now.")
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
        """Yield each task with its result, or with `Died`, in order of completion."""
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
        """Send a task to the worker at an index, starting a process if none is alive."""
        worker = self._workers[place]
        if worker is None or not worker.process.is_alive():
            worker = self._workers[place] = self._start(place)
        worker.task = task
        with contextlib.suppress(OSError):  # it has just died, which `_answer` reports
            worker.tasks.send(task)

    def _answer(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        """Read one message of a worker; yield the task if the message is its result."""
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
        parent_end, worker_end = context.Pipe()
        leash_end, leash = context.Pipe(duplex=False)
        process = context.Process(
            target=_serve,
            args=(worker_end, leash_end, self._work, self._begin, place),
            daemon=True,
        )
        with _blocked_interrupts():
            process.start()
        worker_end.close()
        leash_end.close()
        return _Worker(process, parent_end, leash)


def _serve(
    tasks: Connection,
    leash: Connection,
    work: Callable[[Any, Callable[[str], None]], Any],
    begin: Callable[[int], None],
    place: int,
) -> None:
    """Main loop of a worker."""
    ended, lock = threading.Event(), threading.Lock()
    threading.Thread(target=_watch, args=(leash, ended, lock), daemon=True).start()
    # The parent no longer waits for the results of a stopped worker.
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        try:
            begin(place)
            while True:
                task = tasks.recv()
                result = work(task, lambda message: tasks.send(("message", message)))
                tasks.send(("result", result))
        finally:
            with lock:  # nothing would catch an interrupt after this
                ended.set()


def _watch(leash: Connection, ended: threading.Event, lock: threading.Lock) -> None:
    """Interrupt this process when the leash closes, and end it when its parent ends."""
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
def _blocked_interrupts() -> Iterator[None]:
    """Start processes that do not receive Ctrl-C; in the parent it waits for the end of the block.

    New processes inherit the blocked signals. Otherwise an interrupt during their imports would
    print a traceback for each of them. Windows has no blocked signals.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # beforehand, since it unblocks signals
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
