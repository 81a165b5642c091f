"""A run that gave a value that is not finite: what is told of it."""

import math
from collections.abc import Mapping

from torch import nn

__all__ = ["TrainingDiverged", "check_values", "check_weights", "diverged", "non_finite_parameter"]

_REMEDY = "try a lower learning rate or a longer warm-up"


class TrainingDiverged(FloatingPointError):
    """A step gave a value that is not finite; the weights are those from before it.

    Attributes:
        step: Number of the step, from 0.
        part: Name of the objective's part; of the parameter whose gradient, or whose value after
            the step, it is; or "validation".
    """

    def __init__(self, message: str, *, step: int, part: str) -> None:
        super().__init__(message)
        self.step = step
        self.part = part


def diverged(module: nn.Module, *, step: int, part: str, what: str) -> TrainingDiverged:
    """The error of a step that was not taken.

    Args:
        module: The module as it was before the step.
        step: Number of the step, from 0.
        part: What is to blame.
        what: A clause that says what is wrong with it.
    """
    broken = non_finite_parameter(module)
    if broken is None:
        advice = _REMEDY
    else:
        # Not this step's doing: the one before overflowed, or the module came so.
        advice = f"{broken!r} is not finite in them already: begin again from sound weights"
    return TrainingDiverged(
        f"training stopped in step {step} (from 0): {what}. The weights are those from before "
        f"this step; {advice}.",
        step=step,
        part=part,
    )


def check_values(module: nn.Module, values: Mapping[str, float], *, step: int) -> None:
    """Refuse a step with a value that is not finite, before the optimiser takes it.

    Args:
        module: Holds the step's gradients.
        values: The objective's parts, and "gradient_norm".
        step: Number of the step, from 0.

    Raises:
        TrainingDiverged: Names the part, or the parameter whose gradient is not finite.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    # The loss is a sum of the other parts as a rule: the culprit is among those.
    part = next((name for name in bad if name not in ("loss", "gradient_norm")), bad[0])
    what = f"{part!r} must be finite; got {values[part]}"
    if part == "gradient_norm":
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        part = next((n for n, grad in gradients.items() if not grad.isfinite().all()), part)
        what = f"gradients must be finite; got {values['gradient_norm']} as their norm"
        what += f", first in {part!r}" if part != "gradient_norm" else ""
    raise diverged(module, step=step, part=part, what=what)


def check_weights(module: nn.Module, *, step: int) -> None:
    """Refuse weights that an update has made NaN or infinite: finite gradients do not rule it out.

    Args:
        module: The module after the step.
        step: Number of the last step, from 0.

    Raises:
        TrainingDiverged: Names the first such parameter.
    """
    broken = non_finite_parameter(module)
    if broken is not None:
        raise TrainingDiverged(
            f"training stopped after step {step} (from 0): its update made {broken!r} NaN or "
            f"infinite. The weights are of no use; begin again, or from the checkpoint before, "
            f"and {_REMEDY}.",
            step=step,
            part=broken,
        )


def non_finite_parameter(module: nn.Module) -> str | None:
    """Name of the first parameter that holds NaN or infinity."""
    parameters = module.named_parameters()
    return next((name for name, p in parameters if not p.isfinite().all()), None)
