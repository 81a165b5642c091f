"""Run a comparison: train and evaluate every variant with every seed, and collect the results.

All variants share the text, the order of rows, the seeds, the budget, and the rows, draws and
resamples of the evaluation. They differ only in the keys of their configs: variants with the same
autoencoder, backbone or input start from the same weights in it.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import yaml

from calmkit.experiments import EvaluationPlan, RunProgress, RunRecord, threads_of_a_run

from .executing import run_all
from .planned_runs import PlannedRun, read_record, why_again
from .planning import Preparation
from .results import ComparisonResult, Failure, TrialResult, VariantResult
from .softmax_baseline import SOFTMAX
from .softmax_scoring import forget_softmax_chunks, score_softmax_chunks
from .timing import time_variants

__all__ = ["compare", "result_of_one"]

_LIBRARIES = ("calmkit", "torch", "numpy", "tokenizers", "lightning-fabric")


def compare(
    prepared: Preparation, runs: Sequence[PlannedRun], display: RunProgress
) -> ComparisonResult:
    """Train and evaluate every variant with every seed, except runs that are already finished."""
    comparison = prepared.comparison
    for text in {corpus.digest: corpus for corpus in prepared.corpora.values()}.values():
        display.note(f"Text: {text.name}, {text.train.num_tokens:,} training tokens.")
    left = [run for run in runs if read_record(run) is None]
    if len(left) < len(runs):
        display.note(f"{len(runs) - len(left)} of {len(runs)} runs are already finished.")
    for reason, again in _reasons(left).items():
        display.note(f"{again} repeated: {reason}. Earlier trainings are kept.")
    if comparison.softmax is None or any(run.variant == SOFTMAX for run in left):
        forget_softmax_chunks(runs)
    threads = threads_of_a_run(comparison)
    failures = run_all(left, processes=comparison.processes, threads=threads, display=display)
    if comparison.softmax is not None:
        score_softmax_chunks(runs, threads=threads, display=display)
    time_variants(runs, threads=threads, display=display)
    found = [(run, record) for run in runs if (record := read_record(run)) is not None]
    shared = yaml.safe_load(comparison.text)
    differing = shared["variants"]
    if comparison.softmax is not None:  # it is no variant of the config
        differing |= {SOFTMAX: {"model": "token_lm", **comparison.softmax}}
    variants = tuple(
        _variant(
            variant.name,
            _config_of(differing[variant.name], prepared.trials.get(variant.name, ())),
            [record for run, record in found if run.variant == variant.name],
            tuple(
                failures[variant.name, seed]
                for seed in comparison.seeds
                if (variant.name, seed) in failures
            ),
            prepared.trials.get(variant.name, ()),
        )
        for variant in comparison.variants
    )
    corpus = prepared.corpora[comparison.variants[0].name]
    return ComparisonResult(
        name=comparison.output.name,
        variants=variants,
        seeds=comparison.seeds,
        budget=comparison.budget,
        corpus_name=corpus.name,
        corpus_digest=corpus.digest,
        config=comparison.text,
        hardware="; ".join(sorted({one.hardware for _, one in found})) or "no run succeeded",
        versions=_versions(),
        remarks=_remarks(prepared),
    )


def _remarks(prepared: Preparation) -> tuple[str, ...]:
    comparison = prepared.comparison
    found = [f"Tuning: {prepared.tuning}."] if prepared.tuning else []
    if comparison.softmax is not None:
        remark = f"{SOFTMAX}: the training FLOPs of {comparison.variants[0].name}."
        if any(variant.experiment.chunk_size > 1 for variant in comparison.variants):
            remark += (
                " Its own line scores each token after the true one before it; as a baseline it "
                "draws chunks, as the variants do."
            )
        found.append(remark)
    return tuple(found)


def _config_of(differing: Mapping[str, Any], trials: Sequence[TrialResult]) -> str:
    """The keys in which a variant differs, with the values that tuning has chosen for it."""
    chosen = next((trial.values for trial in trials if trial.is_chosen), {})
    return yaml.safe_dump({**differing, **chosen}, sort_keys=False)


def _reasons(runs: Iterable[PlannedRun]) -> dict[str, str]:
    """Runs whose stored result cannot be used, by reason."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if reason := why_again(run):
            found.setdefault(reason, []).append(run.label)
    return {
        reason: f"{labels[0]}, is" if len(labels) == 1 else f"{len(labels)} runs are"
        for reason, labels in found.items()
    }


def _variant(
    name: str,
    config: str,
    records: Sequence[RunRecord],
    failures: tuple[Failure, ...] = (),
    trials: tuple[TrialResult, ...] = (),
) -> VariantResult:
    """The results and failures of one variant."""
    first = records[0] if records else None
    return VariantResult(
        name=name,
        head=first.head if first else "",
        parameters=first.parameters if first else 0,
        head_parameters=first.head_parameters if first else 0,
        config=config,
        runs=tuple(record.result for record in records),
        failures=failures,
        trials=trials,
    )


def result_of_one(record: RunRecord, plan: EvaluationPlan, name: str) -> ComparisonResult:
    """The result of one model, as that of a comparison with one variant."""
    seed = record.result.seed
    return ComparisonResult(
        name=name,
        variants=(_variant("model", "", [record]),),
        seeds=() if seed is None else (seed,),
        budget="steps",
        corpus_name=plan.text_name,
        corpus_digest=plan.text_digest,
        config=plan.config,
        hardware=record.hardware,
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    libraries = {library: version(library) for library in _LIBRARIES}
    return {"python": platform.python_version()} | libraries
