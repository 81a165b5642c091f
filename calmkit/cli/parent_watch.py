"""A process that `calmkit train` has started for a further device ends if its parent does.

From the first step on, `calmkit.cluster.ending_together` sees to it. Before, a process imports its
libraries, reads its text, and waits for the other processes. It would wait for minutes if the one
that has started it, and at which all meet, was killed in the meantime. So a thread watches the
parent from the first line of the program.

The parent leaves its number in the environment: otherwise a process whose parent ended before this
first line would have nothing to compare with. Processes that a launcher or a shell has started are
not watched. Nor does Windows tell that a parent has ended.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ending_with_parent", "watch_parent"]

_VARIABLE = "CALMKIT_PARENT"
_SECONDS_BETWEEN_LOOKS = 0.5
# For whoever knows more of the end, such as `ending_together`, to end this process first.
_SECONDS_TO_LEAVE = 4.0


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """Context in which the processes that are started with this environment end with this one."""
    os.environ[_VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_VARIABLE]


def watch_parent() -> None:
    """End this process some seconds after its parent, if that has started it to do so."""
    parent = os.environ.pop(_VARIABLE, None)
    if parent is not None:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    time.sleep(_SECONDS_TO_LEAVE)
    print("calmkit: the first process has ended, and this one ends with it.", file=sys.stderr)
    os._exit(1)
