"""Checkpoints: a folder per step, complete or absent.

    DIRECTORY/step-000123/model.safetensors    weights and buffers
                          optimizer.pt         optimiser state; read with weights_only
                          training.json        step, what decides the run, history, checksums

A checkpoint is written under another name, flushed to disk and renamed: whenever the process
dies, a folder called `step-...` is whole. One that no longer matches its own checksums is
refused by name, never skipped in silence.
"""

import json
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

from calmkit.extras import require
from calmkit.files import file_digest, flush

from .history import History

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "find_checkpoints",
    "read_checkpoint",
    "write_checkpoint",
]

_FORMAT = 1
_MODEL, _OPTIMIZER, _TRAINING = "model.safetensors", "optimizer.pt", "training.json"
_NAME = re.compile(r"step-(\d{6,})")
_PARTIAL = ".partial-"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that has passed its checks.

    Attributes:
        path: Its folder.
        step: Steps done.
        identity: What decides the run's numbers, as `fit` describes it.
        history: The record up to this step.
    """

    path: Path
    step: int
    identity: dict[str, Any]
    history: History

    def restore(self, module: nn.Module, optimizer: Optimizer) -> None:
        """Load weights and optimiser state into parts of the same build.

        Args:
            module: The module whose weights were saved.
            optimizer: An optimiser built over the same parameters.

        Raises:
            CheckpointError: If names or shapes do not fit, or the optimiser's file holds
                anything but tensors and plain values.
        """
        require("safetensors", "a checkpoint")
        from safetensors.torch import load_model

        try:
            state = torch.load(self.path / _OPTIMIZER, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise _damaged(self.path, f"{_OPTIMIZER} holds more than tensors") from error
        try:
            load_model(module, self.path / _MODEL)
            optimizer.load_state_dict(state)
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
    identity: Mapping[str, Any],
    history: History,
    keep: int,
) -> Path:
    """Write a checkpoint atomically, then delete all but the newest.

    Args:
        directory: Folder of the run; made if missing.
        step: Steps done.
        module: Its weights and buffers are saved.
        optimizer: Its state is saved.
        identity: What decides the run's numbers; anything JSON can hold.
        history: The record up to this step.
        keep: How many checkpoints stay, this one included.

    Returns:
        The checkpoint's folder.
    """
    require("safetensors", "a checkpoint")
    from safetensors.torch import save_model

    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(stale)
    target = directory / f"step-{step:06d}"
    content = {"format": _FORMAT, "step": step, "identity": dict(identity)}
    if target.exists():
        # This run loaded or wrote it, so weights and state are the same already; the history
        # may have gained a validation.
        files = json.loads((target / _TRAINING).read_text(encoding="utf-8"))["files"]
        partial = target / f"{_PARTIAL}{_TRAINING}"
        _write_json(partial, {**content, "files": files, "history": history.to_json()})
        os.replace(partial, target / _TRAINING)
    else:
        partial = directory / f"{_PARTIAL}{target.name}"
        partial.mkdir()
        save_model(module, str(partial / _MODEL))
        torch.save(optimizer.state_dict(), partial / _OPTIMIZER)
        files = {name: file_digest(partial / name) for name in (_MODEL, _OPTIMIZER)}
        for name in files:
            flush(partial / name)
        _write_json(partial / _TRAINING, {**content, "files": files, "history": history.to_json()})
        flush(partial)
        os.replace(partial, target)
    flush(target)
    flush(directory)
    for old in find_checkpoints(directory)[:-keep]:
        # Renamed first: a deletion cut short must not leave half a checkpoint behind.
        os.replace(old, doomed := directory / f"{_PARTIAL}{old.name}")
        shutil.rmtree(doomed)
    return target


def find_checkpoints(directory: Path) -> list[Path]:
    """Folders of a run's checkpoints, oldest first; names of unfinished writes do not count."""
    if not directory.is_dir():
        return []
    found = {
        int(match[1]): path
        for path in directory.iterdir()
        if (match := _NAME.fullmatch(path.name)) and path.is_dir()
    }
    return [found[step] for step in sorted(found)]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's record and check its files.

    Args:
        path: A folder from `find_checkpoints`.

    Raises:
        CheckpointError: If a file is missing, changed or not readable.
    """
    try:
        content = json.loads((path / _TRAINING).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise CheckpointError(
                f"checkpoint {path} must have format {_FORMAT}, which this version of calmkit "
                f"reads; got {content['format']}."
            )
        for name, digest in content["files"].items():
            if file_digest(path / name) != digest:
                raise _damaged(path, f"{name} does not match its checksum")
        history = History.from_json(content["history"])
        return Checkpoint(path, int(content["step"]), dict(content["identity"]), history)
    except FileNotFoundError as error:
        raise _damaged(path, f"{Path(error.filename).name} is missing") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeError) as error:
        raise _damaged(path, f"{_TRAINING} cannot be read") from error


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is damaged: {what}. Delete this folder to resume from the one "
        "before, or to start again if there is none."
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    flush(path)
