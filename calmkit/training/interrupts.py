"""Delaying Ctrl-C to the end of a training step.

During a step, weights, optimiser state and the number of steps are inconsistent. `HeldInterrupts`
delays SIGINT to the end of the step and raises KeyboardInterrupt there. Between steps SIGINT acts
immediately. A second Ctrl-C does not wait.

Several processes must stop after the same step, whichever of them was interrupted. There SIGINT is
always delayed: each step exchanges whether any process has received it, and all raise
KeyboardInterrupt after that step.
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

    Attributes:
        pending: Whether SIGINT was received and has not been raised.
    """

    def __init__(self, *, together: bool = False) -> None:
        """Hold nothing yet.

        Args:
            together: Whether several processes train together.
        """
        self.pending = False
        self._together, self._settled = together, False
        self._previous: Callable[[int, FrameType | None], object] | None = None
        self._in_step = False

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
        """Restore the previous handler of SIGINT.

        Raises:
            KeyboardInterrupt: If SIGINT was received after the last step of several processes.
        """
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            if kind is None and self.pending:
                self._previous(signal.SIGINT, None)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if (self._in_step or self._together) and not self.pending:
            self.pending = True
        elif self._previous is not None:
            self._previous(number, frame)

    @property
    def all_stop(self) -> bool:
        """Whether the other processes, if there are any, stop after the same step."""
        return self._settled or not self._together

    def settle(self, stops: bool) -> None:
        """Learn, in a step, whether any process has received SIGINT.

        Args:
            stops: The same in all processes.
        """
        self._settled = self._together and stops

    @contextmanager
    def step(self) -> Iterator[None]:
        """Hold an interrupt until the end of the block.

        Raises:
            KeyboardInterrupt: At the end of the block, if SIGINT was received, or settled.
        """
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        if self._settled or (self.pending and not self._together):
            self.pending = False
            if self._previous is not None:
                self._previous(signal.SIGINT, None)
            raise KeyboardInterrupt
