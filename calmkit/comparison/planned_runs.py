"""One run of a comparison: a variant with a seed, trained or loaded, evaluated and stored.

    TRAINED/KEY/                    training of an autoencoder or a model, under its key
    OUTPUT/runs/VARIANT/seed-S.json the result, with its key
           trials/VARIANT/VALUES/   the same of a trial, which is short; see `tuning`
           models/VARIANT/          the model of the first seed, as written by `calmkit.save`

A key is a hash of everything that determines the content; see `calmkit.experiments.keys`. A run
whose file has the current key is not repeated. Comparisons that share a training take turns.
"""

import json
import textwrap
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from calmkit.config import TrainExperiment, parse_text
from calmkit.experiments import (
    RunProgress,
    RunRecord,
    Trainer,
    code_of_result,
    prepare,
    save_checkpoint,
)
from calmkit.files import replace_file
from calmkit.json_converter import from_plain, to_json
from calmkit.locks import turn_in
from calmkit.metrics import Estimate
from calmkit.models import LanguageModel
from calmkit.provenance import code_changes
from calmkit.training import TrainingResult

from .budget import with_steps
from .results import Failure

__all__ = [
    "PlannedRun", "do_run", "keep", "read_record", "read_trial", "trained_model",
    "why_again",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class PlannedRun:
    """The plan of one run, which can be pickled for another process.

    Attributes:
        variant: Name of the variant.
        text: Its effective config.
        seed: Seed of training.
        steps: Optimiser steps under the budget.
        key: Key of its result.
        training: Key of the training it needs.
        autoencoder: Key of the autoencoder it needs.
        code: Digests of the code when the keys were computed, from `code_of_result`.
        saves: Whether to save its model.
        is_trial: Whether it is a trial of tuning, of which only Brier-1 is measured, on rows of
            its own.
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
    is_trial: bool = False

    @property
    def label(self) -> str:
        """The name of the run in messages."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def file(self) -> Path:
        """The file of its result."""
        kind = "trials" if self.is_trial else "runs"
        return self.output / kind / self.variant / f"seed-{self.seed}.json"

    @property
    def training_folder(self) -> Path:
        """The folder of its training."""
        return self.trained / f"model-{self.training}"

    @property
    def error_file(self) -> Path:
        """The file of its traceback, if it failed."""
        return self.file.with_suffix(".error.txt")

    def experiment(self) -> TrainExperiment:
        """Build the experiment from the config.

        Raises:
            ValueError: If the code has changed since the run was planned.
        """
        experiment = parse_text(self.text).experiment
        if changed := code_changes(self.code, code_of_result(self.text)):
            raise ValueError(
                f"code must stay the same while a comparison runs; {_first_few(changed)}. Run it "
                "again."
            )
        training = with_steps(experiment.training, self.steps)
        return replace(experiment, seed=self.seed, training=training, output=self.output)


@dataclass(frozen=True)
class _Kept(Generic[T]):
    """The content of a run's file.

    Attributes:
        key: Key of the result.
        code: Digests of the run's code.
        found: The record of the evaluated model; of a trial, its Brier-1 in per cent.
    """

    key: str
    code: Mapping[str, str]
    found: T


def do_run(run: PlannedRun, display: RunProgress) -> Failure | None:
    """Train the model unless it is stored, evaluate it, and store the result.

    Returns:
        The failure, if any; the traceback is in the run's `error_file`.
    """
    try:
        trainer, model, training = trained_model(run, display)
        display.note(f"{run.label}: measuring on held-out text ...")
        if run.is_trial:
            keep(run, trainer.tuning_brier(model))
            return None
        record = trainer.measure(model, training, timed=False)
        if run.saves:
            save_checkpoint(
                run.output / "models" / run.variant,
                training=training,
                model=model,
                tokenizer=trainer.corpus.tokenizer,
                config_text=run.text,
                metrics=record.metrics(),
                protocol=record.result.protocol,
            )
        keep(run, record)
    except Exception as error:  # of any kind: the other runs continue
        run.error_file.parent.mkdir(parents=True, exist_ok=True)
        run.error_file.write_text(traceback.format_exc(), encoding="utf-8")
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
        return Failure(seed=run.seed, reason=reason)
    return None


def trained_model(
    run: PlannedRun, display: RunProgress
) -> tuple[Trainer, LanguageModel, TrainingResult]:
    """Train the model of a run, or load it if its training is stored.

    Raises:
        ValueError: As in `PlannedRun.experiment`.
    """
    experiment = run.experiment()
    trainer = Trainer(experiment, prepare(experiment), display)
    autoencoder = None
    if run.autoencoder:
        directory = run.trained / f"autoencoder-{run.autoencoder}"
        with turn_in(directory, tell=display.note):
            autoencoder = trainer.train_autoencoder(directory)
    with turn_in(run.training_folder, tell=display.note):
        return trainer, *trainer.train_model(run.label, autoencoder, run.training_folder)


def keep(run: PlannedRun, found: RunRecord | Estimate) -> None:
    """Store the result of a run."""
    run.file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(run.file, to_json(_Kept(run.key, run.code, found)))
    run.error_file.unlink(missing_ok=True)


def read_record(run: PlannedRun) -> RunRecord | None:
    """The stored result of a run; None if it is missing or from another config, text or code."""
    return _read_kept(run, _Kept[RunRecord])


def read_trial(run: PlannedRun) -> Estimate | None:
    """The stored Brier-1 of a trial; None as in `read_record`."""
    return _read_kept(run, _Kept[Estimate])


def _read_kept(run: PlannedRun, kind: type[_Kept[T]]) -> T | None:
    content = _read(run)
    if content is None or content["key"] != run.key:
        return None
    try:
        return from_plain(content, kind).found
    except ValueError:
        return None  # damaged: the run is repeated


def why_again(run: PlannedRun) -> str:
    """Why the stored result of a run cannot be used; empty if there is none."""
    content = _read(run)
    if content is None or content["key"] == run.key:
        return ""
    code = content.get("code")
    changed = code_changes(code, run.code) if isinstance(code, dict) else []
    return _first_few(changed) if changed else "its settings or its text have changed"


def _first_few(changed: list[str]) -> str:
    """The first few changes, on one line."""
    more = f", and {len(changed) - 3} more" if len(changed) > 3 else ""
    return ", ".join(changed[:3]) + more


def _read(run: PlannedRun) -> dict[str, Any] | None:
    """The file of a run; None if it is missing or damaged."""
    try:
        content = json.loads(run.file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "key" in content else None
