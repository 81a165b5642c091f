"""Execute many runs, one after another or in parallel processes.

Runs that share an autoencoder or a training wait for the run that produces it, so that it is
trained once. The first wave has one run per autoencoder, the second one run per remaining
training, the third all other runs. With several processes, each has its own GPU; all runs have the
same number of threads.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence

import torch

from calmkit.experiments import RunProgress, Silent, with_threads
from calmkit.worker_pool import Died, Pool

from .planned_runs import PlannedRun, do_run
from .results import Failure

__all__ = ["in_waves", "run_all"]


def run_all(
    runs: Sequence[PlannedRun], *, processes: int, threads: int, display: RunProgress
) -> dict[tuple[str, int], Failure]:
    """Execute all runs; a failure is reported, and the other runs continue.

    Returns:
        Failures by variant and seed.
    """
    failures = {}
    begin = functools.partial(_take_place, threads=threads, devices=_devices())
    with (
        with_threads(threads),
        Pool(processes, _do_quietly, begin=begin, tell=display.note) as pool,
    ):
        for wave in in_waves(runs):
            for run, failure in _done(wave, pool if processes > 1 else None, display):
                if failure is not None:
                    failures[run.variant, run.seed] = failure
                    whole = f" ({run.error_file})" if run.error_file.exists() else ""
                    display.note(f"{run.label}: failed. {failure.reason}{whole}")
    return failures


def in_waves(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Group the runs into waves, each of which can run in parallel after the previous ones."""
    waves: list[list[PlannedRun]] = [[], [], []]
    autoencoders, trainings = set(), set()
    for run in runs:
        new_autoencoder = run.autoencoder not in autoencoders
        place = 0 if new_autoencoder else (1 if run.training not in trainings else 2)
        autoencoders.add(run.autoencoder)
        trainings.add(run.training)
        waves[place].append(run)
    return [wave for wave in waves if wave]


def _done(
    wave: Sequence[PlannedRun], pool: Pool | None, display: RunProgress
) -> Iterator[tuple[PlannedRun, Failure | None]]:
    """Execute a wave; a single run is executed in this process, which displays its progress."""
    if pool is None or len(wave) == 1:
        for run in wave:
            yield run, do_run(run, display)
        return
    for run, failure in pool.do(wave):
        if isinstance(failure, Died):
            failure = Failure(seed=run.seed, reason=failure.reason)
        if failure is None:
            display.note(f"{run.label}: done.")
        yield run, failure


def _devices() -> list[str]:
    """Values for `CUDA_VISIBLE_DEVICES`, one per visible device."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(place) for place in range(count)]


def _take_place(place: int, *, threads: int, devices: Sequence[str]) -> None:
    """Set the device and the number of threads of this process."""
    if devices:  # before the first use of CUDA, which reads the variable only once
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    torch.set_num_threads(threads)


def _do_quietly(run: PlannedRun, tell: Callable[[str], None]) -> Failure | None:
    return do_run(run, _Notes(tell))


class _Notes(Silent):
    """Forwards notes to another process."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def note(self, text: str) -> None:
        """Send a line."""
        self._tell(text)
