"""Errors for runs whose losses, gradients or weights are not finite."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from calmkit.cluster import local

__all__ = ["TrainingDiverged", "check_values", "check_weights", "diverged", "non_finite_parameter"]

OverAll = Callable[[Tensor], Tensor]

_REMEDY = "try a lower learning rate or a longer warm-up"


def _alone(flags: Tensor) -> Tensor:
    return flags


class TrainingDiverged(FloatingPointError):
    """A step produced a value that is not finite; the weights are those before the step.

    Attributes:
        step: Number of the step, from 0.
        part: Name of the objective's part, of the parameter (whose gradient or new value it is),
            or "validation".
    """

    def __init__(self, message: str, *, step: int, part: str) -> None:
        super().__init__(message)
        self.step = step
        self.part = part


def diverged(module: nn.Module, *, step: int, part: str, reason: str) -> TrainingDiverged:
    """The error for a step that was not taken.

    Args:
        module: The module before the step.
        step: Number of the step, from 0.
        part: The part at fault.
        reason: A clause with the reason.
    """
    broken = non_finite_parameter(module)
    if broken is None:
        advice = _REMEDY
    else:
        # Not this step's fault: the previous step overflowed, or training began like this.
        advice = f"{broken!r} is not finite in them already: begin again from finite weights"
    return TrainingDiverged(
        f"training stopped in step {step} (from 0): {reason}. The weights are those before "
        f"this step; {advice}.",
        step=step,
        part=part,
    )


def check_values(
    module: nn.Module, values: Mapping[str, float], *, step: int, over_all: OverAll = _alone
) -> None:
    """Refuse a step with a value that is not finite, before the optimiser takes it.

    Args:
        module: The module, with the step's gradients.
        values: The objective's parts, and "gradient_norm", equal in all processes.
        step: Number of the step, from 0.
        over_all: Combines the findings of all processes, if each has shards.

    Raises:
        TrainingDiverged: Names the part, or the parameter whose gradient is not finite.
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    # The loss is usually a sum of the other parts, so one of those is at fault.
    part = next((name for name in bad if name not in ("loss", "gradient_norm")), bad[0])
    reason = f"{part!r} must be finite; got {values[part]}"
    if part == "gradient_norm":
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        part = _first_non_finite(gradients, over_all) or part
        reason = f"gradients must be finite; got {values['gradient_norm']} as their norm"
        reason += f", first in {part!r}" if part != "gradient_norm" else ""
    raise diverged(module, step=step, part=part, reason=reason)


def check_weights(module: nn.Module, *, step: int, over_all: OverAll = _alone) -> None:
    """Refuse weights that an update made NaN or infinite, which finite gradients do not exclude.

    Args:
        module: The module after the step.
        step: Number of the last step, from 0.
        over_all: As in `check_values`.

    Raises:
        TrainingDiverged: Names the first such parameter.
    """
    broken = non_finite_parameter(module, over_all=over_all)
    if broken is not None:
        raise TrainingDiverged(
            f"training stopped after step {step} (from 0): its update made {broken!r} NaN or "
            f"infinite. The weights are unusable; begin again, or from the previous checkpoint, "
            f"and {_REMEDY}.",
            step=step,
            part=broken,
        )


def non_finite_parameter(module: nn.Module, *, over_all: OverAll = _alone) -> str | None:
    """Name of the first parameter that holds NaN or infinity.

    Args:
        module: A module; without `over_all` only this process's shards of it are looked at.
        over_all: As in `check_values`.
    """
    return _first_non_finite(dict(module.named_parameters()), over_all)


def _first_non_finite(tensors: Mapping[str, Tensor], over_all: OverAll) -> str | None:
    flags = torch.stack([~local(tensor).isfinite().all() for tensor in tensors.values()])
    return next((n for n, bad in zip(tensors, over_all(flags).tolist(), strict=True) if bad), None)
