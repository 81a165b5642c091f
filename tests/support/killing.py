"""A preparation that is killed whenever it touches the disk; run as a program.

    python killing.py SOURCE WHOLE WORK PROCESSES EVERY

It prepares SOURCE in WORK again and again, killed at every EVERY-th moment and, if no other
processes are there, at each of the last; goes on without being killed; and compares all files
with those of WHOLE. It prints the number of moments. Each preparation is a fork: the parent never
starts a thread.
"""

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from calmkit.data import Preparation, prepare_folder
from calmkit.text import filling, find_sources

OPTIONS = {"tokenizer": "train:270", "shard_tokens": 150, "validation_fraction": 0.3}
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def prepare(source, folder, processes):
    filling._BATCH_DOCUMENTS, filling._SECONDS_BETWEEN_NOTES = 4, 0.0
    asked = Preparation(sources=find_sources([source]), **OPTIONS)
    prepare_folder(asked, folder, processes=processes)


def in_fork(work, moment=None):
    """How a child ended that does `work`, and is killed at a moment."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    # A kill loses nothing that was written, flushed to the disk or not.
    os.fsync = os.fstat
    try:
        if moment is not None:
            kill_at(moment)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def kill_at(moment):
    left = moment

    def count(event, arguments=()):
        nonlocal left
        if (event in EVENTS and "work" in str(arguments)) or event == "fsync":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def fsync(descriptor):
        count("fsync")
        os.fstat(descriptor)

    os.fsync = fsync
    sys.addaudithook(count)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def was_killed(source, whole, work, processes, moment):
    """Whether there is such a moment; afterwards the folder must be whole."""
    shutil.rmtree(work, ignore_errors=True)
    code = in_fork(lambda: prepare(source, work, processes), moment)
    if code == 0:
        return False
    assert code == -signal.SIGKILL, code
    assert in_fork(lambda: prepare(source, work, processes)) == 0, moment
    assert content(work) == content(whole), moment
    return True


def main(source, whole, work, processes, every):
    given, moment = (source, Path(whole), Path(work), processes), 1
    while was_killed(*given, moment):
        moment += every
    if processes == 0:
        for last in range(moment - every - 10, moment):
            was_killed(*given, last)
    print(moment)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
