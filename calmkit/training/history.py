"""The history of a run: its loss curve, its validations and its time.

A point of the curve is the mean over the steps since the previous point, so that every step
counts. The sums of an unfinished point are part of the history: a resumed run continues them, and
its curve equals that of an uninterrupted run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History", "Point"]

Point = tuple[int, dict[str, float]]
"""Number of steps done, and values by name."""


@dataclass
class History:
    """The growing record of a run.

    Attributes:
        seconds: Time spent in training steps, over all parts of a resumed run.
        curve: Means of the objective's parts, gradient norm and learning rate.
        validation: Results of `validate`.
        sums: Sums over the steps since the last point of the curve.
        summed: Number of these steps.
    """

    seconds: float = 0.0
    curve: list[Point] = field(default_factory=list)
    validation: list[Point] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0

    def add(self, values: Mapping[str, float]) -> None:
        """Add one step's values.

        Args:
            values: Values by name; the names must be the same in all steps between two points.

        Raises:
            ValueError: If the names differ from those of the previous step.
        """
        if self.summed == 0:
            self.sums = dict(values)
        elif self.sums.keys() != values.keys():
            raise ValueError(
                "objective must return the same keys in every step; got "
                f"{sorted(values)} after {sorted(self.sums)}."
            )
        else:
            for name, value in values.items():
                self.sums[name] += value
        self.summed += 1

    def close_point(self, step: int) -> Point:
        """Append the means as the curve's next point, and return it."""
        point = (step, {name: total / self.summed for name, total in self.sums.items()})
        self.curve.append(point)
        self.sums, self.summed = {}, 0
        return point

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries; floats survive JSON exactly."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "History":
        """The history from the result of `to_json`."""
        fields = dict(content)
        for name in ("curve", "validation"):
            fields[name] = [(step, dict(values)) for step, values in content[name]]
        return cls(**fields)
