"""Solvers for x'(t) = f(x, t) from t = 0 to 1, by fixed steps; usable without a head."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["integrate_midpoint"]


@typed
def integrate_midpoint(
    field: Callable[[Tensor, Tensor], Tensor], x: Float[Tensor, "*batch latent"], steps: int
) -> Float[Tensor, "*batch latent"]:
    """Follow a velocity field with the explicit midpoint rule: order 2, two evaluations a step.

        x <- x + h f(x + h/2 f(x, t), t + h/2),    h = 1 / steps

    Args:
        field: Velocity at (x, t); t is a scalar tensor.
        x: Where to start, at t = 0.
        steps: Number of steps.

    Raises:
        ValueError: If there is no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}.")
    h = 1 / steps
    times = torch.arange(2 * steps, dtype=x.dtype, device=x.device) * (h / 2)
    for start, middle in times.view(steps, 2).unbind(0):
        x = x + h * field(x + h / 2 * field(x, start), middle)
    return x
