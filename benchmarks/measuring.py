"""Seconds and bytes of one piece of work, measured so that two pieces can be compared.

Seconds: whatever else a machine does changes its speed from one minute to the next. The pieces
therefore take turns, and a ratio is the median over rounds of the ratio within a round.

Bytes: every allocation and release that the tensor allocator itself reports, hence also the
temporaries within an operator. That is exact, and the same in every run. Peak resident memory is
neither: it counts pages, and what the C library keeps after a release.
"""

import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

__all__ = [
    "choose_clock",
    "environment",
    "interleaved_seconds",
    "log_log_slope",
    "peak_bytes",
    "print_results",
    "times_faster",
]

Work = Callable[[], None]
Key = TypeVar("Key", bound=Hashable)

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler announces each start and stop


def environment(device: torch.device) -> dict[str, str | int]:
    """What the numbers of a benchmark depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def print_results(
    results: Mapping[str, Any], device: torch.device, file: Path | None = None
) -> None:
    """Print numbers, and what they depend on, as JSON; the same text goes to the file, if any."""
    text = json.dumps({**environment(device), "results": results}, indent=2)
    print(text)
    if file is not None:
        file.write_text(text + "\n", encoding="utf-8")


def choose_clock(device: torch.device) -> tuple[Callable[[], float], str]:
    """A clock, and what it counts: that of the processor where one thread works alone.

    Other work on the machine hardly enters it.
    """
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "processor seconds"
    return time.perf_counter, "wall-clock seconds"


def interleaved_seconds(
    works: dict[Key, Work],
    rounds: int,
    device: torch.device,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Seconds of each piece of work in each round: first to last, last to first, and so on.

    A round before the first one, not counted, fills caches. On the CPU `time.process_time` is a
    clock that stands still while other programs run; it adds up the threads of this one.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in works}
    for turn in range(rounds + 1):
        for key in reversed(works) if turn % 2 else works:
            _wait(device)
            start = clock()
            works[key]()
            _wait(device)
            seconds[key].append(clock() - start)
    return {key: found[1:] for key, found in seconds.items()}


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Theirs / ours within each round: the median over rounds, the least and the most."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def peak_bytes(work: Work, device: torch.device) -> int:
    """Most bytes of tensors alive at once during `work`, beyond those alive before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    alive = peak = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        alive += change["args"]["Bytes"]
        peak = max(peak, alive)
    return peak


def log_log_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of the least-squares fit y = c x^p: 1 for a cost that is linear in x."""
    return statistics.linear_regression(list(map(math.log, x)), list(map(math.log, y))).slope


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
