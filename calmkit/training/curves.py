"""Logging of a run's curves by Fabric's loggers; by default to a CSV file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.disk import writing

from .history import History, Point
from .progress import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import Logger

__all__ = ["Curves"]


class Curves:
    """Sends points of the curves to all loggers, as "train/loss", "validation/...".

    Attributes:
        reports: True only in the process that reports.
    """

    def __init__(
        self, fabric: "Fabric", directory: Path | None, loggers: "Sequence[Logger] | None"
    ) -> None:
        self.reports = fabric.is_global_zero
        if loggers is None:
            loggers = fabric.loggers
            if not loggers and directory is not None:
                loggers = [_csv(directory)]
        self._loggers = tuple(loggers) if self.reports else ()

    def write_all(self, history: History) -> None:
        """Write the earlier points of a resumed run, so that its log is complete."""
        points = [(step, "train", values) for step, values in history.curve]
        points += [(step, "validation", values) for step, values in history.validation]
        for step, kind, values in sorted(points, key=lambda point: point[:2]):
            self.write(kind, (step, values))

    def write(self, kind: str, point: Point, progress: Progress | None = None) -> None:
        """Write one point under names that start with its kind, and the run's progress."""
        step, values = point
        for logger in self._loggers:
            # A new dictionary for each: loggers modify their argument.
            named = {f"{kind}/{k}": v for k, v in values.items()}
            named |= {} if progress is None else progress.to_log()
            with _writing(logger):
                logger.log_metrics(named, step=step)

    def flush(self) -> None:
        """Write the loggers' buffers to disk."""
        for logger in self._loggers:
            with _writing(logger):
                logger.save()

    def close(self, status: str) -> None:
        """End the logs with the status "success", "failed" or "aborted"."""
        for logger in self._loggers:
            with _writing(logger):
                logger.finalize(status)


@contextmanager
def _writing(logger: "Logger") -> Iterator[None]:
    target = getattr(logger, "root_dir", None) or f"the log of {type(logger).__name__}"
    with writing(target, kept="the checkpoints are kept, and a new log will hold all points"):
        yield


def _csv(directory: Path) -> "Logger":
    from lightning_fabric.loggers import CSVLogger

    # Each part of a resumed run has its own version: this logger would delete an old file.
    return CSVLogger(directory / "logs", name="", flush_logs_every_n_steps=1)
