"""Writing a checkpoint's folder atomically.

The folder is written next to its destination under another name, flushed to disk and renamed.
Whenever the process dies, a folder of the given name is complete.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calmkit.disk import writing
from calmkit.files import flush, partial_of

from .files import BIN_FILE, CONFIG_FILE

__all__ = ["check_new", "new_folder", "write_folder"]


def check_new(folder: Path) -> None:
    """Refuse a folder that is not empty: old files next to new ones would be a third model."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"folder must be new or empty, so that only one model is in it; {folder} is not. "
            "Choose another or delete it."
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into; at the end of the block it is renamed to `folder`.

    Args:
        folder: New or empty; missing parent folders are made.

    Raises:
        ValueError: If the folder is not empty, or is a file.
        WriteError: If it cannot be written; names the parent folder, and leaves nothing behind.
    """
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(folder)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    try:
        with writing(folder.parent, kept="nothing was left there"):
            yield partial
            for path in (*partial.iterdir(), partial):
                flush(path)
        if folder.exists():
            folder.rmdir()  # not every system can rename onto an empty folder
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    flush(folder.parent)


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write `config.json` and `pytorch_model.bin`.

    Args:
        folder: New or empty; missing parent folders are made.
        config: Content of the config.
        tensors: Weights; a tensor with several names is written once.

    Raises:
        ValueError: If the folder is not empty, or is a file.
    """
    with new_folder(folder) as partial:
        text = json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        # Opened here: PyTorch does not report why it cannot write a file that it opens itself.
        with (partial / BIN_FILE).open("wb") as file:
            torch.save(dict(tensors), file)
