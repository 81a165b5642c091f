"""One run of a comparison: a variant with a seed, trained or found, measured, and kept.

    TRAINED/KEY/                    training of an autoencoder or a model, under what decides it
    OUTPUT/runs/VARIANT/seed-S.json what was found, with the key of all that decides it
           models/VARIANT/          the model of the first seed, as `calmkit.save` writes it

A run whose file has the right key is not done again. Comparisons that share a training take turns.
"""

import json
import textwrap
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calmkit.config import TrainExperiment, parse_text
from calmkit.experiments import (
    RunProgress,
    RunRecord,
    Trainer,
    code_of_result,
    from_plain,
    prepare,
    save_checkpoint,
    to_json,
)
from calmkit.files import replace_file
from calmkit.locks import turn_in
from calmkit.provenance import code_changes

from .budget import with_steps
from .results import Failure

__all__ = ["PlannedRun", "do_run", "read_record", "why_again"]


@dataclass(frozen=True)
class PlannedRun:
    """What one run does; everything in it can be sent to another process.

    Attributes:
        variant: Name of the variant.
        text: Its effective config.
        seed: Seed of training.
        steps: Optimiser steps, by the budget.
        key: Of all that decides its result.
        training: Key of the training it needs.
        autoencoder: Key of the autoencoder it needs.
        code: What the code was when the keys were made, by `code_of_result`.
        saves: Whether its model is saved.
        output: The comparison's folder.
        trained: Folder of trainings.
    """

    variant: str
    text: str
    seed: int
    steps: int
    key: str
    training: str
    autoencoder: str
    code: Mapping[str, str]
    saves: bool
    output: Path
    trained: Path

    @property
    def label(self) -> str:
        """What to call it where it is shown."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.output / "runs" / self.variant / f"seed-{self.seed}.json"

    @property
    def error_file(self) -> Path:
        """Where the whole error of one that failed is kept."""
        return self.file.with_suffix(".error.txt")

    def experiment(self) -> TrainExperiment:
        """Its config, built.

        Raises:
            ValueError: If this process has imported other code than the one that planned the run.
        """
        experiment = parse_text(self.text).experiment
        if changed := code_changes(self.code, code_of_result(self.text)):
            raise ValueError(
                f"code must stay the same while a comparison runs; {_some(changed)}. Run it again."
            )
        training = with_steps(experiment.training, self.steps)
        return replace(experiment, seed=self.seed, training=training, output=self.output)


@dataclass(frozen=True)
class _Kept:
    """What the file of a run holds.

    Attributes:
        key: Of the run.
        code: Its code.
        record: What was measured.
    """

    key: str
    code: Mapping[str, str]
    record: RunRecord


def do_run(run: PlannedRun, display: RunProgress) -> Failure | None:
    """Train what has not been trained, measure it, and keep the result.

    Returns:
        What went wrong, if something did; the traceback is in the run's `error_file`.
    """
    try:
        experiment = run.experiment()
        trainer = Trainer(experiment, prepare(experiment), display)
        autoencoder = None
        if run.autoencoder:
            directory = run.trained / f"autoencoder-{run.autoencoder}"
            with turn_in(directory, tell=display.note):
                autoencoder = trainer.train_autoencoder(directory)
        directory = run.trained / f"model-{run.training}"
        with turn_in(directory, tell=display.note):
            model, training = trainer.train_model(run.label, autoencoder, directory)
        display.note(f"{run.label}: measuring on held-out text ...")
        record = trainer.measure(model, training)
        if run.saves:
            save_checkpoint(
                run.output / "models" / run.variant,
                model=model,
                tokenizer=trainer.corpus.tokenizer,
                config_text=run.text,
                metrics=record.metrics(),
                protocol=record.result.protocol,
            )
        run.file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(run.file, to_json(_Kept(run.key, run.code, record)))
    except Exception as error:  # whatever it is, the other runs go on
        run.error_file.parent.mkdir(parents=True, exist_ok=True)
        run.error_file.write_text(traceback.format_exc(), encoding="utf-8")
        said = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        return Failure(seed=run.seed, reason=said)
    run.error_file.unlink(missing_ok=True)
    return None


def read_record(run: PlannedRun) -> RunRecord | None:
    """The kept result of a run; None if there is none, or one of another config, text or code."""
    content = _read(run)
    if content is None or content["key"] != run.key:
        return None
    try:
        return from_plain(content, _Kept).record
    except ValueError:
        return None  # damaged: it is done again


def why_again(run: PlannedRun) -> str:
    """Why a kept result of a run is not taken, in words; empty if there is none."""
    content = _read(run)
    if content is None or content["key"] == run.key:
        return ""
    code = content.get("code")
    changed = code_changes(code, run.code) if isinstance(code, dict) else []
    return _some(changed) if changed else "its settings or its text have changed"


def _some(changed: list[str]) -> str:
    """A line's worth of what has changed."""
    more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more


def _read(run: PlannedRun) -> dict[str, Any] | None:
    """The file of a run; None if it is missing or damaged."""
    try:
        content = json.loads(run.file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "key" in content else None
