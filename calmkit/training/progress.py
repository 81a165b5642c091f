"""The progress report after each step, for a progress bar or similar."""

from dataclasses import dataclass

from .speed import Speed

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """State of a run after one step.

    Attributes:
        step: Number of steps done, over all parts of a resumed run.
        steps: Number of steps in the whole run.
        loss: Loss of the last step; None for steps that have none, such as megabytes encoded.
        seconds_per_step: Mean wall-clock time since `fit` began, including validation and
            checkpoints.
        speed: Speed of the last steps; None if unknown.
    """

    step: int
    steps: int
    loss: float | None
    seconds_per_step: float
    speed: Speed | None = None

    @property
    def seconds_left(self) -> float:
        """Estimated time until the last step, at the mean speed so far."""
        return (self.steps - self.step) * self.seconds_per_step

    def to_log(self) -> dict[str, float]:
        """The known speed and the time left, by the names they have in logs."""
        values = {} if self.speed is None else self.speed.to_log()
        return {**values, "speed/seconds_left": self.seconds_left}
