"""Checkpoints: a folder per step, complete or absent.

    DIRECTORY/step-000123/model.safetensors    weights and buffers
                          optimizer.pt         optimiser state; read with weights_only
                          ema.safetensors      averaged weights, if the run has them
                          training.json        step, identity of the run, history, checksums of
                                               the files and of this record itself

A checkpoint is written under another name, flushed to disk and renamed: whenever the process
dies, a folder called `step-...` is complete. A folder that does not match its checksums or its
step is refused by name, never silently skipped.
"""

import os
import pickle
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from calmkit.disk import writing
from calmkit.extras import require
from calmkit.files import file_digest, flush, partial_of, replace_file

from .averaged_weights import AveragedWeights
from .checkpoint_record import (
    RECORD,
    UNREADABLE,
    CheckpointError,
    damaged,
    read_record,
    seal,
    unreadable,
)
from .history import History

__all__ = [
    "Checkpoint",
    "find_checkpoints",
    "read_checkpoint",
    "write_checkpoint",
]

_MODEL, _OPTIMIZER, _AVERAGE = "model.safetensors", "optimizer.pt", "ema.safetensors"
_NAME = re.compile(r"step-(\d{6,})")
_PARTIAL = ".partial-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has passed its checks.

    Attributes:
        path: Its folder.
        step: Number of steps done.
        identity: The run's identity; see `run_identity`.
        history: The record up to this step.
    """

    path: Path
    step: int
    identity: dict[str, Any]
    history: History

    def restore(
        self, module: nn.Module, optimizer: Optimizer, average: AveragedWeights | None = None
    ) -> None:
        """Load weights and optimiser state into parts of the same build.

        Args:
            module: The module whose weights were saved.
            optimizer: An optimiser built over the same parameters.
            average: Averages of the same parameters, if the run has them.

        Raises:
            CheckpointError: If names or shapes do not match, or the optimiser's file contains
                anything but tensors and plain values.
        """
        require("safetensors", "a checkpoint")
        from safetensors.torch import load_file, load_model

        try:
            state = torch.load(self.path / _OPTIMIZER, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise damaged(self.path, f"{_OPTIMIZER} holds more than tensors") from error
        try:
            load_model(module, self.path / _MODEL)
            optimizer.load_state_dict(state)
            if average is not None:
                average.load_state_dict(load_file(self.path / _AVERAGE))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {self.path} must hold the weights of the module that is trained; "
                f"build that module or use another directory. {error}"
            ) from error


def write_checkpoint(
    directory: Path,
    *,
    step: int,
    module: nn.Module,
    optimizer: Optimizer,
    average: AveragedWeights | None = None,
    identity: Mapping[str, Any],
    history: History,
    keep: int,
) -> Path:
    """Write a checkpoint atomically, then delete old ones.

    Args:
        directory: Folder of the run; made if missing.
        step: Number of steps done.
        module: Its weights and buffers are saved.
        optimizer: Its state is saved.
        average: Averaged weights, if the run has them.
        identity: The run's identity; any JSON content.
        history: The record up to this step.
        keep: Number of newest checkpoints to keep, including this one.

    Returns:
        The checkpoint's folder.

    Raises:
        WriteError: If it cannot be written; earlier checkpoints are kept.
        CheckpointError: If there is a checkpoint of this step, but it is damaged.
    """
    target = directory / _name(step)
    record = {"step": step, "identity": dict(identity), "history": history.to_json()}
    with writing(target, kept="the checkpoints before it are kept"):
        directory.mkdir(parents=True, exist_ok=True)
        for stale in directory.glob(f"{_PARTIAL}*"):
            shutil.rmtree(stale)
        if target.exists():
            # This run loaded or wrote it, so weights and state are equal. The history may have
            # gained a validation.
            _renew(target, record)
        else:
            _write_new(target, record, module, optimizer, average)
        flush(target)
        flush(directory)
    for old in find_checkpoints(directory)[:-keep]:
        # Renamed first, so that an interrupted deletion does not leave half a checkpoint.
        os.replace(old, doomed := partial_of(old))
        shutil.rmtree(doomed)
    return target


def _renew(target: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a checkpoint atomically."""
    files = read_record(target)["files"]
    try:
        replace_file(target / RECORD, seal({**record, "files": files}))
    except BaseException:
        partial_of(target / RECORD).unlink(missing_ok=True)
        raise


def _write_new(
    target: Path,
    record: Mapping[str, Any],
    module: nn.Module,
    optimizer: Optimizer,
    average: AveragedWeights | None,
) -> None:
    """Write a checkpoint atomically."""
    require("safetensors", "a checkpoint")
    from safetensors.torch import save_file, save_model

    partial = partial_of(target)
    partial.mkdir()
    try:
        save_model(module, str(partial / _MODEL))
        # Opened here: PyTorch does not report why it cannot write a file that it opens itself.
        with (partial / _OPTIMIZER).open("wb") as file:
            torch.save(optimizer.state_dict(), file)
        if average is not None:
            save_file(average.state_dict(), partial / _AVERAGE)
        files = {path.name: file_digest(path) for path in sorted(partial.iterdir())}
        for name in files:
            flush(partial / name)
        replace_file(partial / RECORD, seal({**record, "files": files}))
        flush(partial)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def find_checkpoints(directory: Path) -> list[Path]:
    """Folders of a run's checkpoints, oldest first; unfinished ones are ignored."""
    if not directory.is_dir():
        return []
    found = [
        (int(match[1]), path)
        for path in directory.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    ]
    return [path for _, path in sorted(found)]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's record and check its files.

    Args:
        path: A folder from `find_checkpoints`.

    Raises:
        CheckpointError: If a file is missing, changed or unreadable, or the folder is named after
            another step.
    """
    content = read_record(path)
    try:
        for name in {_MODEL, _OPTIMIZER, *content["files"]}:
            if file_digest(path / name) != content["files"][name]:
                raise damaged(path, f"{name} does not match its checksum")
        history = History.from_json(content["history"])
        checkpoint = Checkpoint(path, content["step"], dict(content["identity"]), history)
        name = _name(checkpoint.step)
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if path.name != name:
        raise CheckpointError(
            f"checkpoint {path} must be called {name}, after the step that it holds. Rename it, "
            "or delete it to resume from the one before."
        )
    return checkpoint


def _name(step: int) -> str:
    return f"step-{step:06d}"
