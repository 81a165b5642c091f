"""From sources to a prepared folder, as a stream: any size, all cores, bounded memory.

    files -> documents -> side by hash, token ids -> shards, offsets -> manifest
                          in worker processes         in order

A killed run resumes where it stopped if its options and sources are unchanged, and writes the same
bytes. The manifest is written last. The bytes do not depend on the number of processes either.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from calmkit.disk import writing
from calmkit.locks import LOCK_FILE
from calmkit.text import WORK_FOLDER, Journal, Source, check_same_plan

from .folder_work import FolderWork
from .manifest import Manifest, is_prepared
from .preparation import Preparation

__all__ = ["prepare_folder", "source_of_stream"]


def _ignore(*message: object) -> None:
    """Discard messages and progress."""


def prepare_folder(
    preparation: Preparation,
    folder: Path,
    *,
    skip_bad: int = 0,
    processes: int | None = None,
    tell: Callable[[str], None] = _ignore,
    progress: Callable[[int, int], None] = _ignore,
) -> Manifest:
    """Write or complete a folder; no other process may write to it (`locks`).

    Args:
        preparation: The sources and options.
        folder: A new or empty folder, or one started by the same preparation.
        skip_bad: Number of bad documents that may be skipped.
        processes: Number of encoding processes. None: one per core, or only this process if
            there is little text.
        tell: Called with a message before each long step.
        progress: Called with the bytes of the sources done so far and in total.

    Returns:
        The manifest; the existing one if the folder is already complete.

    Raises:
        ValueError: If the folder has other content, or the text cannot be read, is too small
            or has too many bad documents.
        WriteError: If the disk is full.
    """
    journal, plan = Journal(folder), preparation.plan
    if is_prepared(folder):
        journal.remove()
        manifest = Manifest.read(folder)
        check_same_plan(plan, manifest.options, folder)
        return manifest
    _check_output(folder)
    with writing(folder, kept="finished work is kept, and the next run resumes there"):
        state = journal.begin(plan)
        work = FolderWork(
            preparation,
            folder,
            journal,
            state,
            skip_bad=skip_bad,
            processes=processes,
            tell=tell,
            progress=progress,
        )
        manifest = work.done()
        manifest.write(folder)
    journal.remove()
    return manifest


def source_of_stream(stream: BinaryIO, folder: Path) -> Source:
    """Save JSON lines from a pipe beside the folder's journal until the folder is complete.

    Args:
        stream: The pipe, which is read to its end.
        folder: The folder to prepare.

    Raises:
        ValueError: If the folder has other files.
    """
    _check_output(folder)
    path = folder / WORK_FOLDER / "stdin.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(folder, kept="nothing was prepared"), path.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return Source(path, ".jsonl", "standard input")


def _check_output(folder: Path) -> None:
    """Refuse a folder with other files.

    Raises:
        ValueError: If it has some and was not started by `calmkit prepare`.
    """
    if not folder.exists() or (folder / WORK_FOLDER).exists() or is_prepared(folder):
        return
    if others := [path.name for path in folder.iterdir() if path.name != LOCK_FILE]:
        raise ValueError(
            f"output must be a new, empty or unfinished folder; {folder} holds "
            f"{sorted(others)[0]}. Choose another."
        )
