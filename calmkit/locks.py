"""Locks on folders, so that only one process at a time writes in a folder.

    FOLDER/.lock    its holder: {"process": 4711, "host": "one", "since": "2026-01-31 12:00:00"}

The lock is one of the operating system: it is released when the process ends in any way, and a
leftover file locks nothing. A file system without locks is used without them.
"""

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import cast

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_FILE", "FolderInUseError", "only_one_in", "turn_in"]

LOCK_FILE = ".lock"
_SECONDS_BETWEEN_TRIES = 0.2
# On Windows a locked byte cannot be read, so a byte far beyond the text is locked.
_BYTE = 1 << 30


class FolderInUseError(ValueError):
    """Another process writes in a folder; the message names it and the time since."""


@contextlib.contextmanager
def only_one_in(folder: Path, *, name: str) -> Iterator[None]:
    """Lock a folder, or refuse it.

    Args:
        folder: The folder; made if missing.
        name: The user's name for the folder, such as "output".

    Raises:
        FolderInUseError: If another process holds it.
    """
    lock = _try(folder)
    if lock is None:
        raise FolderInUseError(
            f"{name} must be a folder that no other run writes in; {folder} is in use by "
            f"{_holder(folder)}. Wait for it, or choose another {name}."
        )
    try:
        yield
    finally:
        _release(folder, lock)


@contextlib.contextmanager
def turn_in(folder: Path, *, tell: Callable[[str], None]) -> Iterator[None]:
    """Lock a folder, after waiting for other processes.

    Args:
        folder: The folder; made if missing.
        tell: Called once with a message, if it has to wait.
    """
    lock = _try(folder)
    if lock is None:
        tell(f"waiting for {_holder(folder)}, which works in {folder} ...")
    while lock is None:
        time.sleep(_SECONDS_BETWEEN_TRIES)
        lock = _try(folder)
    try:
        yield
    finally:
        _release(folder, lock)


def _try(folder: Path) -> FileIO | None:
    """The locked file; None if another process holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    while True:
        file = cast(FileIO, path.open("a+b", buffering=0))
        try:
            if not _locked(file):
                file.close()
                return None
            # The holder removes the file at the end, so this one may be gone already.
            if _is_at(file, path):
                _sign(file)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _locked(file: FileIO) -> bool:
    """Lock a file without waiting; False if it is locked."""
    try:
        if sys.platform == "win32":
            file.seek(_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # the file system has no locks
        return True
    return True


def _is_at(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: FileIO) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    holder = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
    with contextlib.suppress(OSError):  # if the disk is full, the lock holds all the same
        file.truncate(0)
        file.write(json.dumps(holder).encode())


def _holder(folder: Path) -> str:
    """The holder of a folder's lock, in words."""
    try:
        other = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))
        return f"process {other['process']} on {other['host']} since {other['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release(folder: Path, file: FileIO) -> None:
    # Removed before it is unlocked: a process that locks a removed file tries again.
    with contextlib.suppress(OSError):  # the folder is gone, or Windows keeps an open file
        (folder / LOCK_FILE).unlink()
    file.close()
