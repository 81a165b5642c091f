"""A file that cannot be written: one line that says why, what to do and what is safe.

Libraries tell of a full disk each in their own way: NumPy without an error number, PyTorch as a
broken container, safetensors by an exception that is no OSError.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["WriteError", "writing"]


class WriteError(OSError):
    """A file could not be written; its text is for the user."""


@contextmanager
def writing(path: Path | str, *, kept: str) -> Iterator[None]:
    """Turn what libraries raise on a full disk, in the block, into a `WriteError`.

    Args:
        path: What is written there.
        kept: A clause that says what is safe.

    Raises:
        WriteError: If the disk is full, a quota or a limit is reached, or the folder is not
            writable.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if reason is None or isinstance(error, WriteError):
            raise
        raise WriteError(
            f"{path} could not be written: {reason}. Free some space, or use another folder, and "
            f"run the same again; {kept}."
        ) from error


def _reason(error: BaseException) -> str | None:
    """What the disk said; None if the exception is about something else."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
        return str(error).split("I/O error: ")[-1]
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return _reason(error.__context__)  # PyTorch's, of a container that was cut short
    return None
