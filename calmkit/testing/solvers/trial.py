"""A solver under test, and a field whose solutions are known."""

import math

import torch
from torch import Tensor

from calmkit.heads import Solver
from calmkit.testing.trial import Trial

__all__ = ["SolverTrial", "turning", "without_steps"]


class SolverTrial(Trial):
    """Builds a solver from the keyword `steps`, if it takes one, and calls it."""

    @property
    def has_steps(self) -> bool:
        """Whether the factory takes a number of steps."""
        return self.takes("steps")

    def build(self, steps: int = 64) -> Solver:
        """A new solver."""
        return self.built(Solver, **({"steps": steps} if self.has_steps else {}))

    def points(self, *batch: int) -> Tensor:
        """Points in the plane."""
        return torch.randn(*batch, 2, generator=self.generator(1))

    def solution(self, x: Tensor, start: float = 0.0, end: float = 1.0) -> Tensor:
        """Where `turning` carries x: turned by the angle between two times, and grown."""
        angle = 2 * (end**2 - start**2) / 2
        growth = math.exp(math.sin(end) - math.sin(start))
        first, second = x.unbind(-1)
        turned = torch.stack(
            [
                math.cos(angle) * first - math.sin(angle) * second,
                math.sin(angle) * first + math.cos(angle) * second,
            ],
            dim=-1,
        )
        return growth * turned


def turning(x: Tensor, time: Tensor) -> Tensor:
    """X' = cos(t) x + 2 t J x, J the right angle: it depends on time and place."""
    first, second = x.unbind(-1)
    return time.cos() * x + 2 * time * torch.stack([-second, first], dim=-1)


def without_steps(trial: SolverTrial) -> str | None:
    """Why contracts of the number of steps do not apply."""
    return None if trial.has_steps else "the factory takes no number of steps"
