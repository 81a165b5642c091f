"""Exceptions that end a command early, and the contexts that tell user errors from bugs."""

from collections.abc import Iterator
from contextlib import contextmanager

from calmkit.disk import WriteError
from calmkit.training import CheckpointError

__all__ = ["Failed", "Mistake", "mistakes", "mistakes_in_checkpoints"]


class Failed(Exception):
    """A failure after the computation began."""


class Mistake(Exception):
    """A user's mistake, with a message that fits on a screen."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Turn a ValueError or OSError into a `Mistake`, for code before the computation.

    A full disk is not a mistake.
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
    """Turn a `CheckpointError` into a `Mistake`; during training any other ValueError is a bug."""
    try:
        yield
    except CheckpointError as error:
        raise Mistake(str(error)) from None
