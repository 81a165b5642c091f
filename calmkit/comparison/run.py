"""The work behind the commands `compare`, `train` and `evaluate`.

What is equal for all variants of a comparison: text, order of rows, seeds, the budget, and the
rows, draws and resamples of the evaluation. Otherwise they differ in what the config says and in
nothing else: variants with the same autoencoder, backbone or input have it with the same first
weights.
"""

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import yaml

from calmkit.comparison.checkpoint import Checkpoint, save_checkpoint
from calmkit.comparison.hardware import describe_hardware, threads_of_a_run
from calmkit.comparison.lab import Lab
from calmkit.comparison.planning import Preparation
from calmkit.comparison.progress import Display
from calmkit.comparison.results import ComparisonResult, Failure, VariantResult
from calmkit.comparison.resuming import CHECKPOINTS, begin
from calmkit.comparison.running import run_all
from calmkit.comparison.runs import (
    PlannedRun,
    describe_model,
    metrics_of,
    read_record,
    train_model,
    why_again,
)
from calmkit.config import TrainExperiment
from calmkit.data import Corpus

__all__ = ["compare", "evaluate_checkpoint", "train"]

_LIBRARIES = ("calmkit", "torch", "numpy", "tokenizers", "lightning-fabric")


def compare(
    prepared: Preparation, runs: Sequence[PlannedRun], display: Display
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
    records = [record for run in runs if (record := read_record(run)) is not None]
    shared = yaml.safe_load(comparison.text)
    variants = tuple(
        _variant(
            variant.name,
            yaml.safe_dump(shared["variants"][variant.name], sort_keys=False),
            [run for run in runs if run.variant == variant.name],
            failures,
        )
        for variant in comparison.variants
    )
    first = comparison.variants[0]
    return _result(
        comparison.output.name,
        variants,
        comparison.seeds,
        comparison.budget,
        prepared.corpora[first.name],
        comparison.text,
        "; ".join(sorted({record.hardware for record in records})) or "no run ended well",
    )


def train(
    experiment: TrainExperiment, corpus: Corpus, *, config_text: str, display: Display
) -> ComparisonResult:
    """Train one model, resuming what the output folder holds of it; save and measure it.

    Args:
        experiment: What to do.
        corpus: The prepared text.
        config_text: The effective config, saved with the model.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    begin(experiment.output, config_text, text=corpus.digest)
    checkpoints = experiment.output / CHECKPOINTS
    autoencoder = lab.train_autoencoder(checkpoints / "autoencoder")
    model, training, untrained = train_model(lab, "model", autoencoder, checkpoints / "model")
    display.note("measuring on held-out text ...")
    record = describe_model(model, lab.describe(model, training, untrained=untrained))
    save_checkpoint(
        experiment.output,
        model=model,
        tokenizer=corpus.tokenizer,
        config_text=config_text,
        metrics=metrics_of(record.result),
        protocol=record.result.protocol,
    )
    return _alone(record.to_variant("model", ""), lab, config_text)


def evaluate_checkpoint(
    experiment: TrainExperiment,
    checkpoint: Checkpoint,
    corpus: Corpus,
    *,
    config_text: str,
    display: Display,
) -> ComparisonResult:
    """Measure a saved model on the corpus's held-out text.

    Args:
        experiment: What it was trained by; its evaluation settings are used.
        checkpoint: The saved model.
        corpus: The prepared text.
        config_text: The config that it is measured by.
        display: Where progress is shown.
    """
    lab = Lab(experiment, corpus, display)
    model = checkpoint.model.to(lab.fabric.device)
    untrained = lab.rough_brier(lab.build(getattr(model, "autoencoder", None)))
    record = describe_model(model, lab.describe(model, None, untrained=untrained))
    return _alone(record.to_variant("model", ""), lab, config_text)


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
    name: str,
    config: str,
    runs: Sequence[PlannedRun],
    failures: dict[tuple[str, int], Failure],
) -> VariantResult:
    """All that became of one variant."""
    records = [record for run in runs if (record := read_record(run)) is not None]
    failed = tuple(failures[name, run.seed] for run in runs if (name, run.seed) in failures)
    if not records:
        return VariantResult(
            name=name, head="", parameters=0, head_parameters=0, config=config, runs=(),
            failures=failed,
        )  # fmt: skip
    first = records[0]
    return VariantResult(
        name=name,
        head=first.head,
        parameters=first.parameters,
        head_parameters=first.head_parameters,
        config=config,
        runs=tuple(record.result for record in records),
        failures=failed,
    )


def _alone(variant: VariantResult, lab: Lab, config_text: str) -> ComparisonResult:
    """A result of one model."""
    experiment = lab.experiment
    name, seeds = experiment.output.name, (experiment.seed,)
    hardware = describe_hardware(lab.fabric.device)
    return _result(name, (variant,), seeds, "steps", lab.corpus, config_text, hardware)


def _result(
    name: str,
    variants: tuple[VariantResult, ...],
    seeds: tuple[int, ...],
    budget: str,
    corpus: Corpus,
    config: str,
    hardware: str,
) -> ComparisonResult:
    return ComparisonResult(
        name=name,
        variants=variants,
        seeds=seeds,
        budget=budget,
        corpus_name=corpus.name,
        corpus_digest=corpus.digest,
        config=config,
        hardware=hardware,
        versions={"python": platform.python_version()}
        | {library: version(library) for library in _LIBRARIES},
    )
