"""What a run reports after each step, for a progress bar or anything else that watches."""

from dataclasses import dataclass

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """State of a run after one step.

    Attributes:
        step: Steps done, over all parts of a resumed run.
        steps: Steps in the whole run.
        loss: Loss of the last step.
        seconds_per_step: Wall-clock mean since `fit` began, validation and checkpoints
            included.
    """

    step: int
    steps: int
    loss: float
    seconds_per_step: float

    @property
    def seconds_left(self) -> float:
        """Time until the last step, at the mean speed so far."""
        return (self.steps - self.step) * self.seconds_per_step
