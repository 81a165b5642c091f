"""Evaluate a saved model, with or without the config of its training.

A folder written by `calmkit train` defines the held-out text and the protocol. For a published
model, or one written by `calmkit.save`, the caller gives both; the default text is the embedded
English prose. The training text of such a model is unknown, and scores on text that it was trained
on are too good.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import torch
import yaml

from calmkit.config import TrainExperiment, WeightedText, check_device, parse_for_evaluation
from calmkit.data import Corpus
from calmkit.evaluation import EvaluationSettings
from calmkit.saving import saved_tokenizer
from calmkit.text import EMBEDDED_NAME
from calmkit.training import out_of_memory_in

from .evaluation_plan import EvaluationPlan
from .hardware import new_fabric
from .measuring import measure
from .model_folder import Checkpoint, check_config_fits
from .preparing import check_positions, prepare, text_to_measure, with_other_text
from .run_record import RunRecord

__all__ = ["device_of", "evaluate_checkpoint", "plan_evaluation"]


def plan_evaluation(
    checkpoint: Checkpoint,
    *,
    data: Path | None = None,
    positions: int | None = None,
    accelerator: str | None = None,
    trust: Collection[str] = (),
    note: Callable[[str], None] = print,
    **settings: int | None,
) -> EvaluationPlan:
    """Read the text to evaluate on, and check that it is long enough.

    Args:
        checkpoint: The model, its tokenizer and its config, if it has one.
        data: A file or folder as in `read_documents`, used as a whole. None: the text held out in
            training, or the embedded English prose if there is no config.
        positions: Chunks in a row. None: as in the config, or 64.
        accelerator: Device to compute on. None: as in the config, or the fastest device.
        trust: Packages outside calmkit whose classes the config may name.
        note: Receives a line for each text that the config names, before it is read.
        settings: Fields of `EvaluationSettings`. None: as in the config, or the defaults.

    Raises:
        ValueError: If an option is out of range, the config does not fit the model, the machine
            has no such accelerator, or the text cannot be read, is too short or has changed since
            the training.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if checkpoint.config is None:
        positions = 64 if positions is None else positions
        plan = _without_config(checkpoint, data, positions, accelerator or "auto", given)
    else:
        options = [f"--evaluation.{name}={value}" for name, value in given.items()]
        if positions is not None:
            options.append(f"--positions={positions}")
        if accelerator is not None:
            options.append(f"--accelerator={accelerator}")
        plan = _of_config(checkpoint, checkpoint.config, data, options, trust, note)
    plan.check()
    return plan


def evaluate_checkpoint(checkpoint: Checkpoint, plan: EvaluationPlan) -> RunRecord:
    """Evaluate a saved model, which is moved to the plan's accelerator.

    Raises:
        OutOfMemory: If an allocation fails.
    """
    with out_of_memory_in("the model", during="evaluation"):
        model = checkpoint.model.to(device_of(plan.accelerator))
        return RunRecord.of(model, measure(model, plan))


def device_of(accelerator: str) -> torch.device:
    """The device of an accelerator; `auto` is the fastest."""
    return new_fabric(accelerator).device


def _of_config(
    checkpoint: Checkpoint,
    config: Path,
    data: Path | None,
    options: Collection[str],
    trust: Collection[str],
    note: Callable[[str], None],
) -> EvaluationPlan:
    parsed = parse_for_evaluation(config, options, trust=trust, command="calmkit evaluate")
    experiment = parsed.experiment
    check_config_fits(checkpoint, experiment)
    for text in (*_paths_in(experiment.data), *_paths_in(experiment.evaluation_data)):
        note(f"Reading {text}, which {config} names.")
    corpus = prepare(experiment)
    _check_same_tokenizer(experiment, corpus, checkpoint)
    if data is not None:
        corpus = with_other_text(corpus, data)
    return EvaluationPlan.of_training(experiment, corpus, parsed.text)


def _check_same_tokenizer(
    experiment: TrainExperiment, corpus: Corpus, checkpoint: Checkpoint
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "tokenizer.json"
        corpus.tokenizer.save(again)
        same = again.read_text(encoding="utf-8") == saved_tokenizer(checkpoint.folder)
    if not same:
        texts = ", ".join(map(str, _paths_in(experiment.data))) or "(embedded text)"
        raise ValueError(
            f"data {texts} must be the text that the model was trained on, which defines the "
            "held-out part; it has changed since. Restore it."
        )


def _paths_in(data: dict[str, WeightedText] | Path | None) -> list[Path]:
    """The paths of a text or a mixture."""
    if isinstance(data, dict):
        return [text.path for text in data.values()]
    return [] if data is None else [data]


def _without_config(
    checkpoint: Checkpoint,
    data: Path | None,
    positions: int,
    accelerator: str,
    settings: dict[str, int],
) -> EvaluationPlan:
    check_device(accelerator)
    chosen = EvaluationSettings(**settings)
    text, digest = text_to_measure(data, checkpoint.tokenizer)
    protocol = {"positions": positions, "evaluation": dataclasses.asdict(chosen)}
    plan = EvaluationPlan(
        text=text,
        tokenizer=checkpoint.tokenizer,
        text_name=EMBEDDED_NAME if data is None else data.resolve().name,
        text_digest=digest,
        chunk_size=checkpoint.model.chunk_size,
        positions=positions,
        settings=chosen,
        accelerator=accelerator,
        config=yaml.safe_dump(protocol, sort_keys=False),
    )
    check_positions(checkpoint.model, plan)
    return plan
