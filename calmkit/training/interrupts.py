"""Delaying Ctrl-C to the end of a training step.

During a step, weights, optimiser state and the number of steps are inconsistent. `HeldInterrupts`
delays SIGINT to the end of the step and raises KeyboardInterrupt there. Between steps SIGINT acts
immediately. A second Ctrl-C does not wait.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

__all__ = ["HeldInterrupts"]


class HeldInterrupts:
    """Context in which `step()` blocks are not interrupted.

    It has no effect outside the main thread, where Python delivers no signals, and if the current
    handler was not installed by Python.
    """

    def __init__(self) -> None:
        self._previous: Callable[[int, FrameType | None], object] | None = None
        self._in_step = False
        self._pending = False

    def __enter__(self) -> "HeldInterrupts":
        """Take over SIGINT."""
        if threading.current_thread() is threading.main_thread():
            previous = signal.getsignal(signal.SIGINT)
            if callable(previous):
                self._previous = previous
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous handler of SIGINT."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._in_step and not self._pending:
            self._pending = True
        elif self._previous is not None:
            self._previous(number, frame)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold an interrupt until the end of the block.

        Raises:
            KeyboardInterrupt: At the end of the block, if SIGINT was received.
        """
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        if self._pending and self._previous is not None:
            self._pending = False
            self._previous(signal.SIGINT, None)
