"""What can end a command early, and where it is told apart from a bug."""

from collections.abc import Iterator
from contextlib import contextmanager

from calmkit.disk import WriteError
from calmkit.training import CheckpointError

__all__ = ["Failed", "Mistake", "mistakes", "mistakes_in_checkpoints"]


class Failed(Exception):
    """Something did not end well after the start."""


class Mistake(Exception):
    """A user's mistake, with its one-screen text."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Before anything is computed, a ValueError or OSError tells of a mistake of the user.

    A disk that is full is none.
    """
    try:
        yield
    except WriteError:
        raise
    except ValueError as error:
        raise Mistake(str(error)) from None
    except OSError as error:
        name = str(error.filename)
        name = name if len(name) <= 80 else f"{name[:60]}..."
        raise Mistake(f"{name} cannot be read or written: {error.strerror}.") from None


@contextmanager
def mistakes_in_checkpoints() -> Iterator[None]:
    """Later only a checkpoint can be wrong; any other ValueError is a bug, with a traceback."""
    try:
        yield
    except CheckpointError as error:
        raise Mistake(str(error)) from None
