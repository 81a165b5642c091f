"""Where a run's curves go: Fabric's loggers, a CSV file by default."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.disk import writing

from .history import History, Point

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import Logger

__all__ = ["Curves"]


class Curves:
    """Points of the curves, sent to every logger as "train/loss", "validation/...".

    Attributes:
        mine: True in the one process that reports.
    """

    def __init__(
        self, fabric: "Fabric", directory: Path | None, loggers: "Sequence[Logger] | None"
    ) -> None:
        self.mine = fabric.is_global_zero
        if loggers is None:
            loggers = fabric.loggers
            if not loggers and directory is not None:
                loggers = [_csv(directory)]
        self._loggers = tuple(loggers) if self.mine else ()

    def write_all(self, history: History) -> None:
        """Write what a resumed run has already behind it, so that its log is complete."""
        points = [(step, "train", values) for step, values in history.curve]
        points += [(step, "validation", values) for step, values in history.validation]
        for step, kind, values in sorted(points, key=lambda point: point[:2]):
            self.write(kind, (step, values))

    def write(self, kind: str, point: Point) -> None:
        """Write one point under names that start with its kind."""
        step, values = point
        for logger in self._loggers:
            # A fresh dictionary for each: loggers add to what they are given.
            named = {f"{kind}/{k}": v for k, v in values.items()}
            with _writing(logger):
                logger.log_metrics(named, step=step)

    def flush(self) -> None:
        """Bring to disk what loggers hold back."""
        for logger in self._loggers:
            with _writing(logger):
                logger.save()

    def close(self, status: str) -> None:
        """End the logs, with "success", "failed" or "aborted"."""
        for logger in self._loggers:
            with _writing(logger):
                logger.finalize(status)


@contextmanager
def _writing(logger: "Logger") -> Iterator[None]:
    place = getattr(logger, "root_dir", None) or f"the log of {type(logger).__name__}"
    with writing(place, kept="the checkpoints are kept, and a new log will hold all points"):
        yield


def _csv(directory: Path) -> "Logger":
    from lightning_fabric.loggers import CSVLogger

    # A version of its own for each part of a resumed run: this logger would delete an old file.
    return CSVLogger(directory / "logs", name="", flush_logs_every_n_steps=1)
