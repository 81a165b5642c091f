"""Loggers of loss curves: CSV files, TensorBoard, Weights & Biases.

A logger is made with the folder of a run. Its library is imported when it is made, so that a
config can name a logger at no cost. Any logger of Lightning Fabric is a `CurveLogger` as well, and
so is any other class with these three methods.
"""

import abc
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calmkit.extras import load_fabric, require

if TYPE_CHECKING:
    from lightning_fabric.loggers import Logger

__all__ = ["CSVCurves", "CurveLogger", "TensorBoardCurves", "WandbCurves"]


class CurveLogger(abc.ABC):
    """Receives the points of the curves of one run."""

    @abc.abstractmethod
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Receive one point.

        Args:
            metrics: Numbers by name, such as "train/loss".
            step: The number of optimiser steps done.
        """

    @abc.abstractmethod
    def save(self) -> None:
        """Write what is not written yet."""

    @abc.abstractmethod
    def finalize(self, status: str) -> None:
        """End the log with the status "success", "failed" or "aborted"."""

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        """A class with the three methods is one, wherever it comes from."""
        if cls is not CurveLogger:
            return NotImplemented
        names = ("log_metrics", "save", "finalize")
        return all(any(name in vars(base) for base in other.__mro__) for name in names)


class _OfFabric(CurveLogger):
    """Hands all calls on to a logger of Lightning Fabric.

    Attributes:
        root_dir: The folder of the logs.
    """

    def __init__(self, logger: "Logger") -> None:
        self.root_dir = logger.root_dir
        self._logger = logger

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._logger.log_metrics(dict(metrics), step=step)

    def save(self) -> None:
        self._logger.save()

    def finalize(self, status: str) -> None:
        self._logger.finalize(status)


class CSVCurves(_OfFabric):
    """A file `metrics.csv`; each part of a resumed run has its own `version_*` folder."""

    def __init__(self, directory: Path, *, name: str = "curves", flush_every: int = 100) -> None:
        """Create the logger.

        Args:
            directory: The folder of the logs.
            name: Subfolder for the versions.
            flush_every: Number of points between writes to the disk.
        """
        loggers = load_fabric("CSVCurves").loggers
        super().__init__(
            loggers.CSVLogger(directory, name=name, flush_logs_every_n_steps=flush_every)
        )


class TensorBoardCurves(_OfFabric):
    """Event files for TensorBoard (extra `tensorboard`)."""

    def __init__(self, directory: Path, *, name: str = "curves") -> None:
        """Create the logger.

        Args:
            directory: The folder of the logs, for `tensorboard --logdir`.
            name: Subfolder for the versions.

        Raises:
            ImportError: If tensorboard is not installed.
        """
        require("tensorboard", "TensorBoardCurves")
        super().__init__(
            load_fabric("TensorBoardCurves").loggers.TensorBoardLogger(directory, name=name)
        )


class WandbCurves(CurveLogger):
    """A run of Weights & Biases (extra `wandb`), offline if `WANDB_MODE=offline` is set."""

    def __init__(
        self,
        directory: Path,
        *,
        project: str = "calmkit",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
    ) -> None:
        """Create the logger; the run starts with its first point.

        Args:
            directory: The folder of the local files.
            project: Project of the run.
            name: Name of the run. None: the last two folders of `directory` that name the run and
                its stage.
            entity: User or team. None: the default one.
            group: Group of the run, such as the name of a comparison.

        Raises:
            ImportError: If wandb is not installed.
        """
        require("wandb", "WandbCurves")
        self.root_dir = str(directory)
        parts = [part for part in Path(directory).parts if part != "logs"]
        self._settings = {
            "project": project, "name": name or "/".join(parts[-2:]), "entity": entity,
            "group": group,
        }  # fmt: skip
        self._run: Any = None

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send one point; the first one starts the run."""
        if self._run is None:
            wandb = importlib.import_module("wandb")
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            # Two runs of one process: the autoencoder's and the model's.
            self._run = wandb.init(dir=self.root_dir, reinit="create_new", **self._settings)
        self._run.log(dict(metrics), step=step)

    def save(self) -> None:
        """Nothing: wandb writes by itself."""

    def finalize(self, status: str) -> None:
        """End the run; any status but "success" marks it as failed."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None
