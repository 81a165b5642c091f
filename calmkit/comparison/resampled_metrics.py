"""Metrics of several runs, with their values on resampled documents and for other seeds.

Resampled and leave-one-out values are linear in a metric, and so are means over seeds. Therefore a
difference of two models, or a weighted sum of metrics, is again such a sample.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.metrics import Estimate, Variance, errors_of, estimates_from, jackknife

__all__ = ["Sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """Metrics of several runs, with resampled and leave-one-out values.

    Attributes:
        values: Metrics of each run, (seeds, metrics).
        drawn: Mean over runs in each resample, (resamples, metrics).
        without_each: Mean over runs without each group, (groups, metrics).
        shares: Each group's share of the tokens, (groups, metrics).
        level: Level of the confidence intervals; None if groups are rows.
    """

    values: Tensor
    drawn: Tensor
    without_each: Tensor
    shares: Tensor
    level: float | None

    def less(self, other: "Sample") -> "Sample":
        """Paired differences to a sample with the same seeds and documents."""
        return Sample(
            self.values - other.values,
            self.drawn - other.drawn,
            self.without_each - other.without_each,
            (self.shares + other.shares) / 2,
            self.level,
        )

    def of(self, metrics: list[int]) -> "Sample":
        """A subset of the metrics."""
        return Sample(
            self.values[:, metrics],
            self.drawn[:, metrics],
            self.without_each[:, metrics],
            self.shares[:, metrics],
            self.level,
        )

    def weighted(self, weights: Tensor) -> "Sample":
        """A weighted sum of the metrics, as a single metric."""
        column = weights[:, None]
        return Sample(
            self.values @ column,
            self.drawn @ column,
            self.without_each @ column,
            self.shares.mean(dim=1, keepdim=True),
            self.level,
        )

    def variance(self) -> Variance:
        """Variance of the means over seeds, over documents and over seeds."""
        of_text = jackknife(self.values.mean(dim=0), self.without_each, self.shares)
        seeds = len(self.values)
        if seeds == 1:
            return of_text
        of_seeds = self.values.var(dim=0) / seeds
        return of_text + Variance(of_seeds, torch.full_like(of_seeds, seeds - 1.0))

    def errors(self) -> Tensor:
        """Standard errors of the means over seeds, over documents and over seeds."""
        seeds = len(self.values)
        of_seeds = self.values.var(dim=0) / seeds if seeds > 1 else 0.0
        return (errors_of(self.drawn).square() + of_seeds).sqrt()

    def estimates(self) -> list[Estimate]:
        """Means over seeds, with errors and intervals."""
        means = self.values.mean(dim=0)
        return estimates_from(means, self.errors(), self.variance(), self.level)
