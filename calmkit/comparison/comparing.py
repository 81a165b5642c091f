"""The work of a comparison: every variant with every seed, and one result of all.

What is equal for all variants of a comparison: text, order of rows, seeds, the budget, and the
rows, draws and resamples of the evaluation. Otherwise they differ in what the config says and in
nothing else: variants with the same autoencoder, backbone or input have it with the same first
weights.
"""

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import yaml

from calmkit.experiments import EvaluationPlan, RunProgress, RunRecord, threads_of_a_run

from .planned_runs import PlannedRun, read_record, why_again
from .planning import Preparation
from .results import ComparisonResult, Failure, VariantResult
from .waves import run_all

__all__ = ["compare", "result_of_one"]

_LIBRARIES = ("calmkit", "torch", "numpy", "tokenizers", "lightning-fabric")


def compare(
    prepared: Preparation, runs: Sequence[PlannedRun], display: RunProgress
) -> ComparisonResult:
    """Train and measure every variant with every seed, but for what the output folder has already.

    Args:
        prepared: A comparison and its texts.
        runs: By `plan_runs`.
        display: Where progress is shown.
    """
    comparison = prepared.comparison
    left = [run for run in runs if read_record(run) is None]
    if len(left) < len(runs):
        display.note(f"{len(runs) - len(left)} of {len(runs)} runs are there already.")
    for reason, again in _reasons(left).items():
        display.note(f"{again} done again: {reason}. Trainings of before are kept.")
    failures = run_all(
        left,
        processes=comparison.processes,
        threads=threads_of_a_run(comparison),
        display=display,
    )
    found = [(run, record) for run in runs if (record := read_record(run)) is not None]
    shared = yaml.safe_load(comparison.text)
    variants = tuple(
        _variant(
            variant.name,
            yaml.safe_dump(shared["variants"][variant.name], sort_keys=False),
            [record for run, record in found if run.variant == variant.name],
            tuple(
                failures[variant.name, seed]
                for seed in comparison.seeds
                if (variant.name, seed) in failures
            ),
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
        hardware="; ".join(sorted({one.hardware for _, one in found})) or "no run ended well",
        versions=_versions(),
    )


def _reasons(runs: Iterable[PlannedRun]) -> dict[str, str]:
    """Which runs have a result that is not taken, by the reason."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if reason := why_again(run):
            found.setdefault(reason, []).append(run.label)
    return {
        reason: f"{labels[0]}, is" if len(labels) == 1 else f"{len(labels)} runs are"
        for reason, labels in found.items()
    }


def _variant(
    name: str, config: str, records: Sequence[RunRecord], failures: tuple[Failure, ...]
) -> VariantResult:
    """All that became of one variant."""
    first = records[0] if records else None
    return VariantResult(
        name=name,
        head=first.head if first else "",
        parameters=first.parameters if first else 0,
        head_parameters=first.head_parameters if first else 0,
        config=config,
        runs=tuple(record.result for record in records),
        failures=failures,
    )


def result_of_one(record: RunRecord, plan: EvaluationPlan, name: str) -> ComparisonResult:
    """The result of one model, as that of a comparison with one variant.

    Args:
        record: What was measured.
        plan: How it was measured.
        name: What the result is called.
    """
    seed = record.result.seed
    return ComparisonResult(
        name=name,
        variants=(_variant("model", "", [record], ()),),
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
