"""Numbers of some runs, and what they would have been on other documents and with other seeds.

Both resamples and sums without one document are linear in a metric, as a mean over seeds is. So a
difference of two models, or a weighted sum of metrics, is again such a sample.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.metrics import Estimate, Variance, errors_of, estimates_from, jackknife

__all__ = ["Sample", "difference"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Numbers of some runs, and what they would have been on other documents.

    Attributes:
        values: Of each run, (seeds, metrics).
        drawn: Their mean over runs in each resample, (resamples, metrics).
        without_each: The same without each group, (groups, metrics).
        shares: Share of the tokens that each group has, (groups, metrics).
        level: Of confidence intervals; None over rows.
    """

    values: Tensor
    drawn: Tensor
    without_each: Tensor
    shares: Tensor
    level: float | None

    def less(self, other: "Sample") -> "Sample":
        """Of the same seeds and documents: the differences."""
        return Sample(
            self.values - other.values,
            self.drawn - other.drawn,
            self.without_each - other.without_each,
            (self.shares + other.shares) / 2,
            self.level,
        )

    def of(self, metrics: list[int]) -> "Sample":
        """Some of the metrics."""
        return Sample(
            self.values[:, metrics],
            self.drawn[:, metrics],
            self.without_each[:, metrics],
            self.shares[:, metrics],
            self.level,
        )

    def weighted(self, weights: Tensor) -> "Sample":
        """A sum of the metrics, as a single one."""
        column = weights[:, None]
        return Sample(
            self.values @ column,
            self.drawn @ column,
            self.without_each @ column,
            self.shares.mean(dim=1, keepdim=True),
            self.level,
        )

    def variance(self) -> Variance:
        """Of the means over seeds: both parts."""
        of_text = jackknife(self.values.mean(dim=0), self.without_each, self.shares)
        seeds = len(self.values)
        if seeds == 1:
            return of_text
        of_seeds = self.values.var(dim=0) / seeds
        return of_text + Variance(of_seeds, torch.full_like(of_seeds, seeds - 1.0))

    def errors(self) -> Tensor:
        """Standard errors of the means over seeds: both parts."""
        seeds = len(self.values)
        of_seeds = self.values.var(dim=0) / seeds if seeds > 1 else 0.0
        return (errors_of(self.drawn).square() + of_seeds).sqrt()

    def estimates(self) -> list[Estimate]:
        """Means over seeds."""
        means = self.values.mean(dim=0)
        return estimates_from(means, self.errors(), self.variance(), self.level)


def difference(one: Sample, first: Sample, *, paired: bool) -> list[Estimate]:
    """Numbers of one variant less those of the first.

    Args:
        one: What was measured.
        first: The same metrics, of the same seeds.
        paired: Whether the documents are the same; otherwise variances are added.
    """
    if paired:
        return one.less(first).estimates()
    change = (one.values - first.values).mean(dim=0)
    errors = torch.hypot(one.errors(), first.errors())
    level = None if first.level is None else one.level
    return estimates_from(change, errors, one.variance() + first.variance(), level)
