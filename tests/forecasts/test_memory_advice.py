"""What to change if memory does not suffice, with the forecast of each change."""

import types
from dataclasses import replace
from pathlib import Path

import pytest
from train_configs import train

from calmkit.forecasts import evaluation_advice, memory_advice, validation_advice


def advice(*options, devices=1, stage="model"):
    """With forecasts that tell the change: rows at a time, in GB; a third of it in shards."""

    def forecaster(changed, count):
        settings = changed.autoencoder_training if stage == "autoencoder" else changed.training
        rows = settings.micro_batch or settings.batch_size // count
        size = rows * 1e9 / (3 if changed.strategy == "fsdp" else 1)
        if getattr(changed.backbone(16), "activation_checkpointing", False):
            size /= 12
        return {stage: types.SimpleNamespace(total_memory=size)}

    experiment = replace(train(*options).experiment, output=Path("out"))
    return memory_advice(stage, experiment, devices, forecaster)


def test_fewer_rows_or_shards():
    assert advice("--training.batch_size", "24", "--training.micro_batch", "12") == (
        "memory must suffice for 12 GB on each device, the forecast for the model with 12 rows at "
        "a time, and an allocation failed: set training.micro_batch to 6 (6 GB), or "
        "backbone.activation_checkpointing to true (1 GB), or strategy to fsdp on 8 devices "
        "(4 GB); the checkpoints in out/checkpoints are kept, and resume with the same "
        "micro_batch."
    )


@pytest.mark.parametrize(
    ("options", "devices", "stage", "message"),
    [
        (["--autoencoder_training.batch_size", "30"], 2, "autoencoder",
         "set autoencoder_training.micro_batch to 1 (1 GB), or strategy to fsdp on 2 devices (5"),
        (["--training.batch_size", "8", "--strategy", "fsdp", "--backbone", "MinGRUBackbone"], 2,
         "model",
         "set training.micro_batch to 2 (0.667 GB); the"),
        (["--training.micro_batch", "1", "--strategy", "fsdp",
          "--backbone.activation_checkpointing", "true"], 2, "model",
         "an allocation failed: use a smaller model; the"),
    ],
)  # fmt: skip
def test_only_what_helps_is_said(options, devices, stage, message):
    assert message in advice(*options, devices=devices, stage=stage)


@pytest.mark.parametrize(
    ("options", "stage", "message"),
    [
        (["--validation_rows", "48"], "model", "model on 48 held-out rows, and an allocation "
         "failed: set validation_rows to 24, and go on from the checkpoints in out/checkpoints."),
        (["--validation_rows", "3"], "finetune", "failed: set validation_rows to 2, and"),
        (["--evaluation.rows", "96"], "autoencoder", "on 96 held-out rows, and an allocation "
         "failed: set evaluation.rows to 48, and"),
        (["--validation_rows", "2"], "model", "failed: use a smaller model. A"),
    ],
)  # fmt: skip
def test_a_validation_has_rows_of_its_own(options, stage, message):
    experiment = replace(train(*options).experiment, output=Path("out"))
    assert message in validation_advice(stage, experiment)


@pytest.mark.parametrize(
    ("options", "stage", "message"),
    [
        (["--evaluation.draws", "6"], "model", "with evaluation.draws = 6, and an allocation "
         "failed: set evaluation.draws to 3, or accelerator to cpu. The same command with it"),
        (["--evaluation.draws", "3"], "model", "failed: set evaluation.draws to 2, or"),
        (["--evaluation.draws", "2"], "model", "failed: use a smaller model, or accelerator to"),
        (["--evaluation.rows", "40"], "finetune", "evaluation.rows = 40, and an allocation "
         "failed: set evaluation.rows to 20, or"),
    ],
)  # fmt: skip
def test_an_evaluation_draws_or_generates(options, stage, message):
    experiment = replace(train(*options).experiment, output=Path("out"))
    assert message in evaluation_advice(stage, experiment)
