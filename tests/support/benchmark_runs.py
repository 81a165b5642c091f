"""The command of a benchmark, run once in a process of its own, at sizes that take a moment."""

import json
from pathlib import Path

import forking
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run_benchmark(folder, name, options, *more):
    """What it printed, and its folder, where numbers.json lies."""
    printed = folder / "printed.txt"
    options = [*options.split(), *more, "--json", folder / "numbers.json"]
    script = BENCHMARKS / f"{name}.py"
    process = forking.start(forking.run_script, script, *options, output=printed)
    assert forking.finished(process) == 0, printed.read_text()
    return printed.read_text(), folder


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
