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

__all__ = ["score_softmax_chunks"]

_NAME = "softmax, in chunks"


def score_softmax_chunks(
    runs: Sequence[PlannedRun], *, again: bool, threads: int, display: RunProgress
) -> None:
    """Score the softmax as a baseline of every variant of K > 1, and store it in their results.

    Variants without a result, or with another tokenizer, are left out. A failure is reported, and
    the comparison goes on.

    Args:
        runs: All runs of the comparison, finished.
        again: Whether the softmax has been trained or scored anew, so that older scores are void.
        threads: Threads of the evaluation.
        display: Receives the progress.
    """
    first: dict[str, tuple[PlannedRun, RunRecord]] = {}
    for run in runs:
        if (record := read_record(run)) is not None:
            first.setdefault(run.variant, (run, record))
    softmax, _ = first.pop(SOFTMAX, (None, None))
    unscored = [
        one for one in first.values() if again or _NAME not in (one[1].result.baselines or {})
    ]
    if softmax is None or not unscored:
        return
    try:
        with with_threads(threads):
            _score(softmax, unscored, display)
    except Exception as error:  # of any kind: the scores of the variants are worth more
        display.note(f"{SOFTMAX}: not scored in chunks. {type(error).__name__}: {error}")


def _score(
    softmax: PlannedRun, scored: Sequence[tuple[PlannedRun, RunRecord]], display: RunProgress
) -> None:
    trainer, model, training = trained_model(softmax, Silent())  # it is stored, not trained
    found: dict[tuple[Any, ...], tuple[Estimate, ...]] = {}
    for run, record in scored:
        experiment = run.experiment()
        plan = EvaluationPlan.of_training(experiment, prepare(experiment))
        same = experiment.vocab_size == trainer.experiment.vocab_size
        if plan.chunk_size == 1 or not same or plan.text_digest != trainer.plan.text_digest:
            continue
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
