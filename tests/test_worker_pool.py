"""Workers: what they do, how they end, and that none is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from calmkit.worker_pool import Died, Pool

PLACE = None


def begin(place):
    global PLACE
    PLACE = place


def tell_slowly(text):
    """In the parent: what comes after is no longer the same moment."""
    time.sleep(0.1)


def work(task, tell):
    """In a worker: a task is a number, or the name of a way to end."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "leave":
        os._exit(3)
    if isinstance(task, str):  # a file: say that work has begun, and wait for an interrupt
        Path(task).write_text(str(os.getpid()))
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            time.sleep(0.3)  # as writing takes; a second interrupt would fall into it
            Path(task).with_suffix(".kept").write_text("")
            raise
    tell(f"{task} at {PLACE}")
    return task * task


def test_a_task_whose_process_dies_is_lost_and_the_others_are_done():
    told = []
    with Pool(2, work, begin=begin, tell=told.append) as pool:
        found = dict(pool.do([0, "die", 2, "leave", 3]))
        found |= dict(pool.do([4]))
        assert list(pool.do([])) == []
    assert found == {
        0: 0,
        2: 4,
        3: 9,
        4: 16,
        "die": Died("its process was ended by SIGKILL; is there enough memory?"),
        "leave": Died("its process ended with exit code 3"),
    }
    assert sorted(line.partition(" at ")[0] for line in told) == ["0", "2", "3", "4"]
    assert {line.partition(" at ")[2] for line in told} <= {"0", "1"}


PARENT = """
import sys
from calmkit.worker_pool import Pool
from test_worker_pool import begin, tell_slowly, work
if __name__ == "__main__":
    with Pool(2, work, begin=begin, tell=tell_slowly) as pool:
        list(pool.do(sys.argv[1:]))
"""


@pytest.fixture
def parent(tmp_path):
    """A real process with two workers at work, in a group of their own as in a terminal."""
    (tmp_path / "parent.py").write_text(PARENT)
    files = [tmp_path / "one", tmp_path / "two"]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py", *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: all(file.is_file() and file.read_text() for file in files), seconds=60)
    process.workers = [int(file.read_text()) for file in files]
    yield process
    for pid in (process.pid, *process.workers):
        if lives(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def lives(pid):
    """Whether a process is there and no zombie that only waits to be noticed."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def until(happened, *, seconds):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@needs_proc
def test_workers_end_with_a_parent_that_is_killed(parent):
    assert all(map(lives, parent.workers))
    parent.send_signal(signal.SIGKILL)
    until(lambda: not any(map(lives, parent.workers)), seconds=2)


@needs_proc
def test_an_interrupt_reaches_each_worker_once_and_prints_no_traceback(parent, tmp_path):
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: the parent and the workers
    _, errors = parent.communicate(timeout=20)
    assert not any(map(lives, parent.workers))
    assert (tmp_path / "one.kept").exists() and (tmp_path / "two.kept").exists()
    # The parent's own, since this program does not catch it; none of a worker.
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
