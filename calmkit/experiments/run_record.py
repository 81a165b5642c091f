"""A trained model with what was measured of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calmkit.autoencoders import ChunkAutoencoder
from calmkit.models import CALM, LanguageModel, TokenLM
from calmkit.training import TrainingResult

from .run_result import RunResult
from .stages import Lab

__all__ = ["RunRecord", "describe_model", "metrics_of", "train_model"]


@dataclass(frozen=True)
class RunRecord:
    """A result, with the model it is of.

    Attributes:
        head: Class of the head, or of the model where it has none.
        parameters: Trained parameters.
        head_parameters: Those of the head, or of a softmax model's output.
        result: The numbers.
        hardware: Device and threads.
        code: What the code was, by `code_of_result`.
    """

    head: str
    parameters: int
    head_parameters: int
    result: RunResult
    hardware: str
    code: Mapping[str, str] = field(default_factory=dict)


def train_model(
    lab: Lab, label: str, autoencoder: ChunkAutoencoder | None, directory: Path | None
) -> tuple[LanguageModel, TrainingResult]:
    """A trained model, and the record of its training."""
    model = lab.build(autoencoder)
    return model, lab.train(label, model, directory)


def describe_model(model: LanguageModel, result: RunResult, hardware: str) -> RunRecord:
    """A result with the numbers of the model itself."""
    part = model.head if isinstance(model, CALM) else model
    last = model.output if isinstance(model, TokenLM) else part
    return RunRecord(
        head=f"{type(part).__module__}.{type(part).__qualname__}",
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        head_parameters=sum(p.numel() for p in last.parameters()),
        result=result,
        hardware=hardware,
    )


def metrics_of(result: RunResult) -> dict[str, float]:
    """What stands on the model card."""
    losses = {"energy score": result.energy_score, "cross entropy": result.cross_entropy}
    found = {name: loss.value for name, loss in losses.items() if math.isfinite(loss.value)}
    return {"BrierLM": result.brier_lm, **found}
