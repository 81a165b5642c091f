"""Print checkpoint warnings as one line on stderr, regardless of Python's warning filters."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from calmkit.interop import CheckpointWarning

__all__ = ["warnings_in_one_line"]


@contextmanager
def warnings_in_one_line(command: str) -> Iterator[None]:
    """Print each checkpoint warning without the source line that Python would add.

    Args:
        command: The command, printed in front of the warning.
    """
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, CheckpointWarning):
                shown(message, category, filename, lineno, file, line)
                return
            print(f"calmkit {command}: warning: {message}", file=sys.stderr, flush=True)

        warnings.simplefilter("always", CheckpointWarning)
        warnings.showwarning = show
        yield
