"""Checkpoints: a folder per step, complete or absent.

    DIRECTORY/step-000123/model.safetensors    weights and buffers,
                          optimizer.pt         optimiser state, and
                          ema.safetensors      averaged weights, if the run has them; or their
                                               shards: see `state_files`
                          training.json        step, identity of the run, history, checksums of
                                               the files and of this record itself

A checkpoint is written under another name, flushed to disk and renamed: whenever a process dies, a
folder called `step-...` is complete. A folder that does not match its checksums or its step is
refused by name, never silently skipped. Several processes write and read one folder, which all
must reach.
"""

import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from calmkit.cluster import Placement, first_writes
from calmkit.disk import writing
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
from .state_files import OPTIMIZER_FILE, divided, read_state, write_rest, write_shards, write_whole

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "Checkpoint",
    "find_checkpoints",
    "read_checkpoint",
    "write_checkpoint",
]

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
        self, placement: Placement, optimizer: Optimizer, average: AveragedWeights | None = None
    ) -> None:
        """Load weights and optimiser state into parts of the same build, in every process.

        Args:
            placement: The module whose weights were saved.
            optimizer: An optimiser built over its trained parameters.
            average: Averages of these parameters, if the run has them.

        Raises:
            CheckpointError: If names or shapes do not match, or the optimiser's file contains
                anything but tensors and plain values.
        """
        try:
            read_state(self.path, placement, optimizer, average)
        except pickle.UnpicklingError as error:
            raise damaged(self.path, f"{OPTIMIZER_FILE} holds more than tensors") from error
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"checkpoint {self.path} must hold the weights of the module that is trained; "
                f"build that module or use another directory. {error}"
            ) from error


def write_checkpoint(
    directory: Path,
    *,
    step: int,
    placement: Placement,
    optimizer: Optimizer,
    average: AveragedWeights | None = None,
    identity: Mapping[str, Any],
    history: History,
    keep: int,
    fabric: "Fabric",
) -> Path:
    """Write a checkpoint atomically, then delete old ones; every process must call it.

    Args:
        directory: Folder of the run; made if missing.
        step: Number of steps done.
        placement: The module, whose weights and buffers are saved.
        optimizer: Its state is saved.
        average: Averaged weights, if the run has them.
        identity: The run's identity; any JSON content.
        history: The record up to this step.
        keep: Number of newest checkpoints to keep, including this one.
        fabric: Connects the processes.

    Returns:
        The checkpoint's folder.

    Raises:
        WriteError: If it cannot be written; earlier checkpoints are kept.
        CheckpointError: If there is a checkpoint of this step, but it is damaged.
    """
    target = directory / _name(step)
    partial = partial_of(target)
    record = {"step": step, "identity": dict(identity), "history": history.to_json()}

    def first(write: Callable[[], object]) -> None:
        first_writes(fabric, lambda: _guarded(write, target))

    try:
        first(lambda: _clear(directory))
        # This run loaded or wrote a checkpoint that exists, so weights and state are equal. The
        # history may have gained a validation.
        if fabric.broadcast(target.exists()):
            first(lambda: _renew(target, record))
        elif placement.is_sharded:
            tensors, rest = divided(placement.trained, optimizer, average)
            first(lambda: write_rest(_made(partial), rest))
            _guarded(lambda: write_shards(partial, tensors), target)
            digests = _shared_digests(partial, fabric)
            first(lambda: _complete(partial, target, record, digests))
        else:
            first(lambda: write_whole(_made(partial), placement.module, optimizer, average))
            first(lambda: _complete(partial, target, record, _digests(sorted(partial.iterdir()))))
        first(lambda: _delete_old(directory, keep))
    except BaseException:
        if fabric.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def _guarded(write: Callable[[], object], target: Path) -> None:
    with writing(target, kept="the checkpoints before it are kept"):
        write()


def _clear(directory: Path) -> None:
    """Make the folder of a run, and remove unfinished checkpoints in it."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(stale)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _renew(target: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a checkpoint atomically."""
    files = read_record(target)["files"]
    replace_file(target / RECORD, seal({**record, "files": files}))
    flush(target)


def _complete(
    partial: Path, target: Path, record: Mapping[str, Any], digests: Mapping[str, str]
) -> None:
    """Write the record of a checkpoint, and give it its name."""
    replace_file(partial / RECORD, seal({**record, "files": digests}))
    flush(partial)
    os.replace(partial, target)
    flush(target.parent)


def _delete_old(directory: Path, keep: int) -> None:
    for old in find_checkpoints(directory)[:-keep]:
        # Renamed first, so that an interrupted deletion does not leave half a checkpoint.
        os.replace(old, doomed := partial_of(old))
        shutil.rmtree(doomed)


def _digests(files: Iterable[Path]) -> dict[str, str]:
    """Checksums of files, which are flushed to disk."""
    for file in files:
        flush(file)
    return {file.name: file_digest(file) for file in files}


def _shared_digests(folder: Path, fabric: "Fabric") -> dict[str, str]:
    """Checksums of the files in a folder; each process reads its share of them."""
    fabric.barrier()
    files = sorted(folder.iterdir())
    own = slice(fabric.global_rank, None, fabric.world_size)
    found = torch.zeros(len(files), 32, dtype=torch.long)
    for row, digest in zip(found[own], _digests(files[own]).values(), strict=True):
        row.copy_(torch.tensor(list(bytes.fromhex(digest))))
    found = torch.as_tensor(fabric.all_reduce(found.to(fabric.device), reduce_op="sum"))
    return {file.name: bytes(row).hex() for file, row in zip(files, found.tolist(), strict=True)}


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
        for name, digest in content["files"].items():
            if file_digest(path / name) != digest:
                raise damaged(path, f"{name} does not match its checksum")
        for file in path.glob("*.safetensors"):  # all of them are read as shards
            if file.name not in content["files"]:
                raise damaged(path, f"{file.name} does not belong to it")
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
