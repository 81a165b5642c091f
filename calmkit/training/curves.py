"""Logging of a run's curves by loggers, by default to a CSV file, and as `calmkit.training`."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.disk import writing

from .history import History, Point
from .loggers import CSVCurves, CurveLogger
from .progress import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers import Logger

__all__ = ["Curves"]

_LOG = logging.getLogger("calmkit.training")


class Curves:
    """Sends points of the curves to all loggers, as "train/loss", "validation/...".

    Attributes:
        reports: True only in the process that reports.
    """

    def __init__(
        self,
        fabric: "Fabric",
        directory: Path | None,
        loggers: "Sequence[CurveLogger | Logger] | None",
    ) -> None:
        self.reports = fabric.is_global_zero
        if loggers is None and not fabric.loggers and directory is not None:
            loggers = [CSVCurves(directory / "logs", name="", flush_every=1)]
        chosen = fabric.loggers if loggers is None else loggers
        self._loggers = tuple(chosen) if self.reports else ()

    def write_all(self, history: History) -> None:
        """Write the earlier points of a resumed run, so that its log is complete."""
        points = [(step, "train", values) for step, values in history.curve]
        points += [(step, "validation", values) for step, values in history.validation]
        for step, kind, values in sorted(points, key=lambda point: point[:2]):
            self._send(kind, (step, values), None)

    def write(self, kind: str, point: Point, progress: Progress | None = None) -> None:
        """Write one point under names that start with its kind, and the run's progress."""
        if self.reports:
            step, values = point
            level = logging.INFO if kind == "validation" else logging.DEBUG
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            _LOG.log(level, "step %d, %s: %s", step, kind, shown)
        self._send(kind, point, progress)

    def _send(self, kind: str, point: Point, progress: Progress | None) -> None:
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
def _writing(logger: "CurveLogger | Logger") -> Iterator[None]:
    target = getattr(logger, "root_dir", None) or f"the log of {type(logger).__name__}"
    with writing(target, kept="the checkpoints are kept, and a new log will hold all points"):
        yield
