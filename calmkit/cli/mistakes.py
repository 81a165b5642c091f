"""What can end a command early, and where it is told apart from a bug."""

from collections.abc import Iterator
from contextlib import contextmanager

from calmkit.training import CheckpointError

__all__ = ["Failed", "Mistake", "mistakes", "mistakes_in_checkpoints"]


class Failed(Exception):
    """Something did not end well after the start."""


class Mistake(Exception):
    """A user's mistake, with its one-screen text."""


@contextmanager
def mistakes() -> Iterator[None]:
    """Before anything is computed, a ValueError tells of a user's mistake."""
    try:
        yield
    except ValueError as error:
        raise Mistake(str(error)) from None


@contextmanager
def mistakes_in_checkpoints() -> Iterator[None]:
    """Later only a checkpoint can be wrong; any other ValueError is a bug, with a traceback."""
    try:
        yield
    except CheckpointError as error:
        raise Mistake(str(error)) from None
