"""Programs in processes of their own, forked from one that has imported the libraries already.

To start Python and import what a command needs takes seconds; a fork takes milliseconds. The
process that is forked is a fresh one, which has run nothing of the tests, and each fork can be
killed as any other process.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import torch

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([
    "late_collection", "calmkit.cli.train", "calmkit.cli.compare", "lightning_fabric",
    "matplotlib", "warmed",
])  # fmt: skip


def start(work, *arguments, output=os.devnull, **environment):
    """A process that does `work(*arguments)`, which are pickled; what it prints is in a file.

    Args:
        work: A function of a module.
        arguments: Its arguments.
        output: The file.
        environment: Variables that differ from those of this process.
    """
    environment = {**os.environ, **environment}
    process = _FORKS.Process(target=_do, args=(work, arguments, str(output), environment))
    process.start()
    return process


def finished(process, *, seconds=240):
    """The exit code of a process that has ended, or been killed because it takes longer."""
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def run_script(file, *options):
    """Run a file of Python as `python FILE OPTIONS` does."""
    sys.argv = [str(file), *map(str, options)]
    sys.path.insert(0, str(Path(file).parent))
    runpy.run_path(str(file), run_name="__main__")


def run_module(name, *options):
    """Run a module as `python -m NAME OPTIONS` does."""
    sys.argv = [name, *map(str, options)]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_command(*options):
    """Run `calmkit OPTIONS`, with its exit code, but draw nothing, which takes seconds."""
    from calmkit.cli import main
    from calmkit.reports import plots

    plots.draw_plots = lambda lines: []
    sys.exit(main([*map(str, options)]))


def _do(work, arguments, output, environment):
    os.environ.clear()
    os.environ |= environment
    torch.set_num_threads(1)
    os.fsync = os.fstat  # as in the tests' own process, see conftest.py
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    work(*arguments)
