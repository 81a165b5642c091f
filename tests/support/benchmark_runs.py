"""The command of a benchmark, run once in a process of its own, at sizes that take a moment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run_benchmark(folder, name, options, *more):
    """What it printed, and its folder, where numbers.json lies."""
    command = [sys.executable, BENCHMARKS / f"{name}.py", *options.split(), *more]
    command += ["--json", folder / "numbers.json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def results(written):
    return json.loads((written[1] / "numbers.json").read_text())["results"]


def check_form(written):
    """The printed tables end with the same JSON, which says where it was measured; a plot."""
    printed, folder = written
    text = (folder / "numbers.json").read_text()
    assert printed.endswith(text)
    found = json.loads(text)
    assert set(found) == {"device", "torch", "python", "machine", "threads", "results"}
    assert (found["device"], found["threads"], found["torch"]) == ("cpu", 1, torch.__version__)
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
