"""What a run tells of its progress, to whoever shows it: a terminal, or nobody."""

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
        """Begin a stage; what is returned is called after each of its steps.

        Args:
            label: What the stage does, in a few words.
        """
        ...


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Drop a line."""

    def track(self, label: str) -> Callable[[Progress], None]:
        """Drop a stage."""
        return lambda progress: None
