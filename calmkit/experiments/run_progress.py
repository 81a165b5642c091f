"""The interface through which a run reports its progress."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from calmkit.training import Progress

__all__ = ["RunProgress", "Silent"]


@runtime_checkable
class RunProgress(Protocol):
    """Receives the progress of a run."""

    def note(self, text: str) -> None:
        """Receive a line of text."""
        ...

    def track(self, label: str) -> Callable[[Progress], None]:
        """Begin a stage, and return a callback for each of its steps.

        Args:
            label: A short description of the stage.
        """
        ...


class Silent:
    """Discards all progress."""

    def note(self, text: str) -> None:
        """Discard a line."""

    def track(self, label: str) -> Callable[[Progress], None]:
        """Discard the progress of a stage."""
        return lambda progress: None
