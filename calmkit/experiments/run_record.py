"""The record of an evaluated model: its result and a description of the model."""

from dataclasses import dataclass

from calmkit.models import CALM, LanguageModel, TokenLM

from .hardware import describe_hardware
from .run_result import RunResult

__all__ = ["RunRecord"]


@dataclass(frozen=True)
class RunRecord:
    """A result, with a description of its model.

    Attributes:
        head: Class of the head, or of the model if it has no head.
        parameters: Number of trained parameters.
        head_parameters: Parameters of the head, or of a softmax model's output.
        result: The result.
        hardware: Device and threads.
    """

    head: str
    parameters: int
    head_parameters: int
    result: RunResult
    hardware: str

    @staticmethod
    def of(model: LanguageModel, result: RunResult, *, devices: int = 1) -> "RunRecord":
        """Describe the model of a result; the model must still be on the device of the run.

        Args:
            model: The model.
            result: Its result.
            devices: Number of devices that it was trained on.
        """
        part = model.head if isinstance(model, CALM) else model
        device = describe_hardware(model.backbone.device)
        last = model.output if isinstance(model, TokenLM) else part
        return RunRecord(
            head=f"{type(part).__module__}.{type(part).__qualname__}",
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            head_parameters=sum(p.numel() for p in last.parameters()),
            result=result,
            hardware=device if devices == 1 else f"{devices} times {device}",
        )

    def metrics(self) -> dict[str, float]:
        """The scores for the model card."""
        found = self.result
        losses = {"energy score": found.energy_score, "cross entropy": found.cross_entropy}
        known = {name: loss.value for name, loss in losses.items() if loss is not None}
        return {"BrierLM": found.brier_lm, **known}
