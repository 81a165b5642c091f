"""Many runs, one after another or side by side in processes of their own.

Runs that share an autoencoder or a training wait for the one that makes it, so that it is made
once: first one run for every autoencoder, then one for every other training, then the rest. With
several processes each has a GPU of its own, or its share of the threads.
"""

import io
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch

from calmkit.comparison.progress import Display
from calmkit.comparison.results import Failure
from calmkit.comparison.runs import PlannedRun, do_run

__all__ = ["in_waves", "run_all"]


def run_all(
    runs: Sequence[PlannedRun], *, processes: int, display: Display
) -> dict[tuple[str, int], Failure]:
    """Do all runs; what fails is told, and the rest go on.

    Args:
        runs: What to do.
        processes: How many at a time.
        display: Where it is shown.

    Returns:
        Failures by variant and seed.
    """
    failures = {}
    for wave in in_waves(runs):
        for run, failure in _done(wave, processes, display):
            if failure is not None:
                failures[run.variant, run.seed] = failure
                display.note(f"{run.label}: failed. {failure.reason}")
    return failures


def in_waves(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """Runs that can be done side by side, each after those that make what it needs."""
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
    wave: Sequence[PlannedRun], processes: int, display: Display
) -> Iterable[tuple[PlannedRun, Failure | None]]:
    if processes == 1 or len(wave) == 1:
        for run in wave:
            yield run, do_run(run, display)
        return
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for place in range(processes):
        places.put(place)
    with ProcessPoolExecutor(
        processes,
        context,
        initializer=_take_place,
        initargs=(places, torch.get_num_threads() // processes, torch.cuda.device_count()),
    ) as pool:
        waiting = {pool.submit(_do_quietly, run): run for run in wave}
        try:
            for future in as_completed(waiting):
                display.note(f"{waiting[future].label}: done.")
                yield waiting[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _take_place(places: "multiprocessing.Queue[int]", threads: int, devices: int) -> None:
    """Take one of the devices, or a share of the threads, for this process alone."""
    place = places.get()
    if devices:  # before anything here has asked CUDA, which would then not look again
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place % devices)
    torch.set_num_threads(max(1, threads))


def _do_quietly(run: PlannedRun) -> Failure | None:
    from rich.console import Console

    return do_run(run, Display(Console(file=io.StringIO())))
