"""Measuring a saved model, whether or not it came with the config of a training.

A folder of `calmkit train` says which text was held out and how it is scored. A published model,
or one that `calmkit.save` wrote, does not: the text is given, or is the embedded English prose,
and the protocol is given too. What such a model was trained on is not known: on text that it has
seen, it scores too well.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

import yaml

from calmkit.config import TrainExperiment, WeightedText, check_device, parse_for_evaluation
from calmkit.data import Corpus
from calmkit.evaluation import EvaluationSettings
from calmkit.saving import saved_tokenizer
from calmkit.text import EMBEDDED_NAME

from .evaluation_plan import EvaluationPlan
from .hardware import new_fabric
from .measuring import measure
from .model_folder import Checkpoint, check_config_fits
from .preparing import check_positions, prepare, text_to_measure, with_other_text
from .run_record import RunRecord

__all__ = ["evaluate_checkpoint", "plan_evaluation"]


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
    """Read the text that a model is measured on, and see that there is enough of it.

    Args:
        checkpoint: The model, its tokenizer and its config, if it has one.
        data: A file or folder as of `read_documents`, all of it. None: what training held out;
            without a config the embedded English prose.
        positions: Chunks in a row. None: as the config says, or else 64.
        accelerator: Where to compute. None: as the config says, or else the fastest device.
        trust: Packages outside calmkit whose classes the config may name.
        note: Called with the texts that the config names, which are read.
        settings: Fields of `EvaluationSettings`. None: as the config says, or else its defaults.

    Raises:
        ValueError: If an option is out of range, the config does not fit the model, the machine
            has no such accelerator, or the text cannot be read, is too short or has changed since
            it was trained on.
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
    """Measure a saved model; it is moved to the plan's accelerator.

    Args:
        checkpoint: The saved model.
        plan: By `plan_evaluation`.
    """
    model = checkpoint.model.to(new_fabric(plan.accelerator).device)
    return RunRecord.of(model, measure(model, plan))


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
            f"data {texts} has changed since the model was trained on it, so what was held out is "
            "not known any more. Restore it."
        )


def _paths_in(data: dict[str, WeightedText] | Path | None) -> list[Path]:
    """The path of a text, or those of a mixture."""
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
