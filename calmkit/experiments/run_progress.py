"""The interface through which a run reports its progress."""

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from calmkit.training import Progress

__all__ = ["RunProgress", "Silent", "bytes_encoded"]

_MB = 1e6
_LOG = logging.getLogger("calmkit.experiments")


@runtime_checkable
class RunProgress(Protocol):
    """Receives the progress of a run."""

    def note(self, text: str) -> None:
        """Receive a line of text."""
        ...

    def track(self, label: str) -> Callable[[Progress], None]:
        """Begin a stage, and return a callback for each of its steps."""
        ...


class Silent:
    """Shows nothing; what happens is logged as `calmkit.experiments`, at the level INFO."""

    def note(self, text: str) -> None:
        """Log a line."""
        _LOG.info("%s", text)

    def track(self, label: str) -> Callable[[Progress], None]:
        """Log the beginning and the end of a stage."""
        _LOG.info("%s ...", label)

        def show(progress: Progress) -> None:
            if progress.step == progress.steps:
                loss = "" if progress.loss is None else f", loss {progress.loss:.4g}"
                _LOG.info("%s: %d steps%s", label, progress.steps, loss)

        return show


def bytes_encoded(display: RunProgress) -> Callable[[int, int], None]:
    """Show the bytes that are encoded as megabytes, with the time left at the speed so far.

    Args:
        display: Where; the stage is announced when the first bytes are told.

    Returns:
        To be told the bytes that are done, and all of them.
    """
    begun, first = 0.0, 0
    show: Callable[[Progress], None] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal show, begun, first
        if show is None:
            show, begun, first = display.track("encoding, MB"), time.monotonic(), done
        seconds, megabytes = time.monotonic() - begun, max(done - first, 1) / _MB
        steps, whole = math.ceil(total / _MB), done >= total
        show(
            Progress(
                step=steps if whole else int(done / _MB),
                steps=steps,
                loss=None,
                # At the end, what it took: less than a megabyte counts as a step there.
                seconds_per_step=seconds / (max(steps, 1) if whole else megabytes),
            )
        )

    return progress
