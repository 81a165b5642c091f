"""Time the generation of each variant, when nothing else of the comparison runs.

A time that is measured beside a training of another process, or between two of them, says little.
All trainings and other measurements are therefore finished before the first variant is timed, and
one variant is timed at a time. It is timed with the first of its runs that has succeeded, since
other seeds do the same work, and the result is stored in that run's file.
"""

from collections.abc import Sequence
from dataclasses import replace

from calmkit.experiments import RunProgress, RunRecord, Silent, time_generation, with_threads

from .planned_runs import PlannedRun, keep, read_record, trained_model

__all__ = ["time_variants"]


def time_variants(runs: Sequence[PlannedRun], *, threads: int, display: RunProgress) -> None:
    """Time every variant that has a result and no time.

    A variant that cannot be timed is reported, and the others continue.
    """
    first: dict[str, tuple[PlannedRun, RunRecord]] = {}
    timed = set()
    for run in runs:
        if (record := read_record(run)) is not None:
            first.setdefault(run.variant, (run, record))
            if record.result.microseconds_per_token is not None:
                timed.add(run.variant)
    for run, record in (one for variant, one in first.items() if variant not in timed):
        if not run.training_folder.is_dir():
            display.note(f"{run.variant}: not timed, since {run.training_folder} is gone.")
            continue
        display.note(f"{run.variant}: timing its generation ...")
        try:
            with with_threads(threads):
                keep(run, _timed(run, record))
        except Exception as error:  # of any kind: the scores are worth more than a time
            display.note(f"{run.variant}: not timed. {type(error).__name__}: {error}")


def _timed(run: PlannedRun, record: RunRecord) -> RunRecord:
    """The record of a run with its time."""
    trainer, model, training = trained_model(run, Silent())  # it is stored, not trained
    with training.averaged():
        timing = time_generation(model, trainer.plan)
    return replace(record, result=replace(record.result, microseconds_per_token=timing))
