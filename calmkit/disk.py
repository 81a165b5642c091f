"""One error for files that cannot be written, with the reason, a remedy and what is safe.

Libraries report a full disk in different ways: NumPy without an error number, PyTorch as a broken
container, safetensors by an exception that is not an OSError.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["WriteError", "writing"]


class WriteError(OSError):
    """A file could not be written; the message is meant for the user."""


@contextmanager
def writing(path: Path | str, *, kept: str) -> Iterator[None]:
    """Convert the errors that libraries raise on a full disk, in the block, to a `WriteError`.

    Args:
        path: The file or folder that is written.
        kept: A clause that states what is safe.

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
    """The system's reason; None if the exception has another cause."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
        return str(error).split("I/O error: ")[-1]
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return _reason(error.__context__)  # raised by PyTorch for a truncated container
    return None
