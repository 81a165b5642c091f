"""The softmax as a baseline at the places of variants that draw several tokens at once.

The softmax's own line scores every token after the true one before it. For a variant of K > 1,
which draws K tokens at once, that is an easier task. The softmax therefore also draws chunks of K
at that variant's places, as the tables of n-grams do, and is a baseline there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from calmkit.evaluation import evaluate_softmax_chunks
from calmkit.experiments import (
    EvaluationPlan,
    RunProgress,
    RunRecord,
    Silent,
    prepare,
    with_threads,
)
from calmkit.metrics import Estimate
from calmkit.models import TokenLM

from .planned_runs import PlannedRun, keep, read_record, trained_model
from .softmax_baseline import SOFTMAX

__all__ = ["forget_softmax_chunks", "score_softmax_chunks"]

_NAME = "softmax, in chunks"


def forget_softmax_chunks(runs: Sequence[PlannedRun]) -> None:
    """Remove the scores of a softmax that is trained or scored anew, or is no longer compared.

    They are removed before the softmax runs, so that no interruption leaves the old ones behind.

    Args:
        runs: All runs of the comparison.
    """
    for run in runs:
        record = read_record(run)
        if record is not None and _NAME in (record.result.baselines or {}):
            kept = {k: v for k, v in (record.result.baselines or {}).items() if k != _NAME}
            keep(run, replace(record, result=replace(record.result, baselines=kept)))


def score_softmax_chunks(
    runs: Sequence[PlannedRun], *, threads: int, display: RunProgress
) -> None:
    """Score the softmax as a baseline of every variant of K > 1, and store it in their results.

    Variants without a result, with these scores, or with another tokenizer, are left out. A
    failure is reported, and the comparison goes on.

    Args:
        runs: All runs of the comparison, finished.
        threads: Threads of the evaluation.
        display: Receives the progress.
    """
    first: dict[str, tuple[PlannedRun, RunRecord]] = {}
    for run in runs:
        if (record := read_record(run)) is not None:
            first.setdefault(run.variant, (run, record))
    softmax, _ = first.pop(SOFTMAX, (None, None))
    unscored = [one for one in first.values() if _NAME not in (one[1].result.baselines or {})]
    if softmax is None:
        return
    try:
        with with_threads(threads):
            _score(softmax, unscored, display)
    except Exception as error:  # of any kind: the scores of the variants are worth more
        display.note(f"{SOFTMAX}: not scored in chunks. {type(error).__name__}: {error}")


def _score(
    softmax: PlannedRun, unscored: Sequence[tuple[PlannedRun, RunRecord]], display: RunProgress
) -> None:
    experiments = [(run, record, run.experiment()) for run, record in unscored]
    chunked = [one for one in experiments if one[2].chunk_size > 1]
    if not chunked:
        return
    own = softmax.experiment()
    digest = prepare(own).digest
    plans = [
        (run, record, EvaluationPlan.of_training(experiment, prepare(experiment)))
        for run, record, experiment in chunked
        if experiment.vocab_size == own.vocab_size
    ]
    plans = [one for one in plans if one[2].text_digest == digest]
    if not plans:
        return
    if not softmax.training_folder.is_dir():
        display.note(f"{SOFTMAX}: not scored in chunks, since {softmax.training_folder} is gone.")
        return
    _, model, training = trained_model(softmax, Silent())  # it is stored, not trained
    found: dict[tuple[Any, ...], tuple[Estimate, ...]] = {}
    for run, record, plan in plans:
        places = plan.chunk_size, plan.positions, plan.settings, plan.seed
        if places not in found:
            display.note(f"{SOFTMAX}: scoring its chunks of {plan.chunk_size} tokens ...")
            with training.averaged():
                brier = evaluate_softmax_chunks(
                    cast(TokenLM, model), plan.rows, plan.settings, seed=plan.seed
                )
            found[places] = brier.brier
        baselines = {**(record.result.baselines or {}), _NAME: found[places]}
        keep(run, replace(record, result=replace(record.result, baselines=baselines)))
