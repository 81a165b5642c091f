"""Say what to change when a device's memory does not suffice for a training or its scores."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from calmkit.accounting import Forecast
from calmkit.backbones import Backbone
from calmkit.config import TrainExperiment
from calmkit.experiments import CHECKPOINTS
from calmkit.nn import without_memory

__all__ = ["evaluation_advice", "memory_advice", "validation_advice"]

_CHECKPOINTING = "activation_checkpointing"  # an attribute of some backbones
# Devices that sharding is suggested on if there is only one.
_SEVERAL = 8


def memory_advice(
    stage: str,
    experiment: TrainExperiment,
    devices: int,
    forecaster: Callable[[TrainExperiment, int], Mapping[str, Forecast]],
) -> str:
    """What to change so that a stage needs less memory, with the forecast of each change.

    Args:
        stage: The stage that ran out of memory.
        experiment: Its experiment.
        devices: Number of devices.
        forecaster: Forecasts the stages of an experiment on a number of devices.
    """

    def needed(changed: TrainExperiment, count: int = devices) -> str:
        return f"{forecaster(changed, count)[stage].total_memory / 1e9:.3g} GB"

    key = "autoencoder_training" if stage == "autoencoder" else "training"
    settings = getattr(experiment, key)
    rows = settings.micro_batch or max(1, settings.batch_size // devices)
    changes = []
    if rows > 1:
        fewer = rows // 2 if rows % 2 == 0 else 1
        less = replace(experiment, **{key: replace(settings, micro_batch=fewer)})
        changes.append(f"{key}.micro_batch to {fewer} ({needed(less)})")
    if stage == "model" and _keeps_activations(experiment.backbone, experiment.hidden_size):
        again = needed(replace(experiment, backbone=_recomputing(experiment.backbone)))
        changes.append(f"backbone.activation_checkpointing to true ({again})")
    if experiment.strategy != "fsdp":
        count = devices if devices > 1 else _SEVERAL
        sharded = needed(replace(experiment, strategy="fsdp"), count)
        changes.append(f"strategy to fsdp on {count} devices ({sharded})")
    remedy = f"set {', or '.join(changes)}" if changes else "use a smaller model"
    return (
        f"memory must suffice for {needed(experiment)} on each device, the forecast for the "
        f"{stage} with {rows} rows at a time, and an allocation failed: {remedy}; the checkpoints "
        f"in {experiment.output / CHECKPOINTS} are kept, and resume with the same micro_batch."
    )


def validation_advice(stage: str, experiment: TrainExperiment) -> str:
    """What to change so that the validation of a stage needs less memory.

    Its rows are computed at once, whatever the micro-batch, in the first process and with whole
    weights. They may change when the training goes on: they do not affect it.

    Args:
        stage: The stage whose validation ran out of memory.
        experiment: Its experiment.
    """
    if stage == "autoencoder":
        key, rows = "evaluation.rows", experiment.evaluation.rows
    else:
        key, rows = "validation_rows", experiment.validation_rows
    remedy = "use a smaller model"
    if rows > 2:
        checkpoints = experiment.output / CHECKPOINTS
        remedy = (
            f"set {key} to {max(2, rows // 2)}, and go on from the checkpoints in {checkpoints}"
        )
    return (
        f"memory must suffice for the validation of the {stage} on {rows} held-out rows, and an "
        f"allocation failed: {remedy}. A micro-batch is no remedy: it divides only the rows of a "
        "training step."
    )


def evaluation_advice(stage: str, experiment: TrainExperiment) -> str:
    """What to change so that the evaluation of a model needs less memory.

    A training ends with it, and its checkpoints are kept. Its settings do not affect the weights.

    Args:
        stage: The stage whose evaluation ran out of memory.
        experiment: Its experiment.
    """
    # Responses to all held-out prompts are generated at once; scores take a few rows at a time.
    name = "rows" if stage == "finetune" else "draws"
    key, now = f"evaluation.{name}", getattr(experiment.evaluation, name)
    fewer = f"set {key} to {max(2, now // 2)}" if now > 2 else "use a smaller model"
    return (
        f"memory must suffice for the evaluation of the model with {key} = {now}, and an "
        f"allocation failed: {fewer}, or accelerator to cpu. The same command with it goes on "
        f"from the checkpoints in {experiment.output / CHECKPOINTS}, and trains no step again."
    )


def _keeps_activations(build: Callable[[int], Backbone], size: int) -> bool:
    """Whether the backbone could recompute its activations and does not."""
    return getattr(without_memory(lambda: build(size)), _CHECKPOINTING, None) is False


def _recomputing(build: Callable[[int], Backbone]) -> Callable[[int], Backbone]:
    def made(size: int) -> Backbone:
        backbone = build(size)
        setattr(backbone, _CHECKPOINTING, True)
        return backbone

    return made
