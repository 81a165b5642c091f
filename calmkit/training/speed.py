"""The speed of a run: tokens per second, and the share of the devices' peak that it reaches.

    share = FLOPs of a step / (seconds of a step * peak of a device * devices)

The FLOPs are those of the forward and the backward pass; what is only recomputed to save memory
does not count. Validation and checkpoints are no part of a step's seconds.
"""

from collections import deque
from dataclasses import dataclass

__all__ = ["Speed", "Speedometer"]


@dataclass(frozen=True)
class Speed:
    """Speed over the last steps.

    Attributes:
        tokens_per_second: Tokens of text in the batches, over all devices.
        share_of_peak: Share of the devices' peak; None if the peak or the FLOPs are unknown.
    """

    tokens_per_second: float
    share_of_peak: float | None

    def to_log(self) -> dict[str, float]:
        """The known values by the names they have in logs."""
        values = {"speed/tokens_per_second": self.tokens_per_second}
        if self.share_of_peak is not None:
            values["speed/share_of_peak"] = self.share_of_peak
        return values


class Speedometer:
    """Averages over the last steps."""

    def __init__(
        self, *, tokens: int, flops: float | None, peak: float | None, steps: int
    ) -> None:
        """Start without a step.

        Args:
            tokens: Tokens of text in a step's batch.
            flops: FLOPs of a step over all devices, if known.
            peak: FLOPs per second of all devices at most, if known.
            steps: Number of steps to average over.
        """
        self._tokens = tokens
        self._share = None if flops is None or peak is None else flops / peak
        self._seconds: deque[float] = deque(maxlen=steps)

    def add(self, seconds: float) -> Speed:
        """Add the time of a step, and return the speed over the last ones."""
        self._seconds.append(seconds)
        mean = sum(self._seconds) / len(self._seconds)
        return Speed(self._tokens / mean, None if self._share is None else self._share / mean)
