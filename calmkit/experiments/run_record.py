"""A measured model: its result, and what the model itself is."""

from dataclasses import dataclass

from calmkit.models import CALM, LanguageModel, TokenLM

from .hardware import describe_hardware
from .run_result import RunResult

__all__ = ["RunRecord"]


@dataclass(frozen=True)
class RunRecord:
    """A result, with the model it is of.

    Attributes:
        head: Class of the head, or of the model where it has none.
        parameters: Trained parameters.
        head_parameters: Those of the head, or of a softmax model's output.
        result: The numbers.
        hardware: Device and threads.
    """

    head: str
    parameters: int
    head_parameters: int
    result: RunResult
    hardware: str

    @staticmethod
    def of(model: LanguageModel, result: RunResult) -> "RunRecord":
        """A result with the numbers of the model itself, which is on the device it was run on."""
        part = model.head if isinstance(model, CALM) else model
        last = model.output if isinstance(model, TokenLM) else part
        return RunRecord(
            head=f"{type(part).__module__}.{type(part).__qualname__}",
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
            head_parameters=sum(p.numel() for p in last.parameters()),
            result=result,
            hardware=describe_hardware(model.backbone.device),
        )

    def metrics(self) -> dict[str, float]:
        """What stands on the model card."""
        found = self.result
        losses = {"energy score": found.energy_score, "cross entropy": found.cross_entropy}
        known = {name: loss.value for name, loss in losses.items() if loss is not None}
        return {"BrierLM": found.brier_lm, **known}
