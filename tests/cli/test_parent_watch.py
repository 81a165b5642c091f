"""A process ends with the one that has started it, and with no other."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a parent's number")

# Ends at once rather than in seconds; otherwise its end is that of its input.
CHILD = """
import os, sys, time
from calmkit.cli import parent_watch
parent_watch._SECONDS_TO_LEAVE = parent_watch._SECONDS_BETWEEN_LOOKS = 0.01
parent_watch.watch_parent()
assert parent_watch._VARIABLE not in os.environ
print("watching", os.getpid(), flush=True)
sys.stdin.read()
"""
PARENT = f"""
import subprocess, sys
from calmkit.cli.parent_watch import ending_with_parent
with ending_with_parent():
    child = subprocess.Popen([sys.executable, "-c", {CHILD + "time.sleep(20)"!r}])
child.wait()
"""


def start(program, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_process_ends_with_its_parent():
    """The pipe of the errors ends only when both have ended."""
    parent = start(PARENT)
    assert parent.stdout.readline().startswith("watching")
    parent.kill()
    _, said = parent.communicate(timeout=60)
    assert "the first process has ended, and this one ends with it" in said


def test_a_parent_that_has_ended_before_is_noticed():
    orphan = start(CHILD, CALMKIT_PARENT="2147483647")  # no process has such a number
    _, said = orphan.stdout.readline(), orphan.stderr.readline()
    assert (orphan.wait(timeout=60), said.partition(" ")[0]) == (1, "calmkit:")
    orphan.communicate()


@pytest.mark.parametrize("named", [True, False])
def test_a_parent_that_lives_or_none_is_left_in_peace(named):
    child = start(CHILD, **({"CALMKIT_PARENT": str(os.getpid())} if named else {}))
    assert child.communicate(timeout=60)[1] == ""
    assert child.returncode == 0
