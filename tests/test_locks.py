"""One process at a time in a folder, whatever becomes of the others."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import calmkit
from calmkit import locks
from calmkit.locks import FolderInUseError, only_one_in, turn_in

HOLDS = """
import sys
from pathlib import Path
from calmkit.locks import only_one_in
with only_one_in(Path(sys.argv[1]), name="output"):
    print("held", flush=True)
    sys.stdin.read()
"""
fcntl = pytest.importorskip("fcntl")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(calmkit.__file__).parents[1])}


@contextlib.contextmanager
def another_process(folder):
    """One that holds the folder until its input ends."""
    command = [sys.executable, "-c", HOLDS, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_another_process_is_named_and_holds_nothing_once_it_is_killed(tmp_path):
    with another_process(tmp_path) as other:
        said = (
            rf"output must be a folder that no other run writes in; {tmp_path} is in use by "
            rf"process {other.pid} on {socket.gethostname()} since \d{{4}}-.* Wait for it, or"
        )
        with pytest.raises(FolderInUseError, match=said), only_one_in(tmp_path, name="output"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (tmp_path / ".lock").exists()
    with only_one_in(tmp_path, name="output"):
        pass


def test_a_turn_comes_when_the_other_is_done(tmp_path):
    told = []
    with another_process(tmp_path) as other:

        def tell(text):
            told.append(text)
            other.stdin.close()

        with turn_in(tmp_path, tell=tell):
            assert other.wait() == 0
    assert len(told) == 1
    assert told[0].startswith(f"waiting for process {other.pid} on ")


def test_nothing_is_left_behind(tmp_path):
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        with only_one_in(folder, name="output"):
            assert [path.name for path in folder.iterdir()] == [".lock"]
            with pytest.raises(FolderInUseError), only_one_in(folder, name="output"):
                pass
        assert list(folder.iterdir()) == []


def test_turns_do_not_overlap(tmp_path):
    """A counter that each process reads and writes: a lock of a removed file would lose counts."""
    (tmp_path / "count").write_text("0")
    program = f"""
from pathlib import Path
from calmkit import locks
locks._SECONDS_BETWEEN_TRIES = 0.0
folder = Path({str(tmp_path)!r})
for _ in range(150):
    with locks.turn_in(folder, tell=lambda text: None):
        count = int((folder / "count").read_text())
        (folder / "count").write_text(str(count + 1))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT) for _ in range(3)
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "450"


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_one_in(tmp_path, name="output"), only_one_in(tmp_path, name="output"):
        pass


def test_a_holder_that_cannot_sign_holds_all_the_same(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.json, "dumps", full)
    with (
        only_one_in(tmp_path, name="output"),
        pytest.raises(FolderInUseError, match="in use by another process"),
        only_one_in(tmp_path, name="output"),
    ):
        pass
