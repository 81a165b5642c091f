"""Standard errors of ratios, by resampling whole documents.

Tokens of one document are not independent, documents are. A mean over tokens is a ratio of two
sums over documents; the bootstrap draws as many documents with replacement and recomputes the
ratio, many times over. The standard deviation of what comes out is the standard error.

Its central part is no good interval: what should hold the truth 95 times in 100 holds it 50 times
with two documents and 88 times with eight. Intervals are those of `calmkit.metrics.intervals`.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

from .intervals import Variance, jackknife, ratios_without_each

__all__ = ["Estimate", "bootstrap_ratio", "errors_of", "estimates_from", "resampled_ratios"]


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: The estimate.
        standard_error: Its standard deviation over resampled documents; None where there are not
            two.
        interval: Confidence interval; None where the text allows none.
    """

    value: float
    standard_error: float | None
    interval: tuple[float, float] | None = None

    def scaled(self, factor: float) -> "Estimate":
        """The same in other units; the factor must not be negative."""
        error = None if self.standard_error is None else factor * self.standard_error
        low_high = self.interval and (factor * self.interval[0], factor * self.interval[1])
        return Estimate(factor * self.value, error, low_high)


@typed
def bootstrap_ratio(
    sums: Float[Tensor, "groups metrics"],
    counts: Float[Tensor, "groups metrics"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float | None = 0.95,
) -> list[Estimate]:
    """Mean per token of each metric, with its standard error and interval over groups.

    A metric with tokens in a single group has neither error nor interval.

    Args:
        sums: Sum of each metric over the tokens of each group (document).
        counts: Number of tokens that each sum runs over.
        resamples: Number of bootstrap draws.
        seed: Of the resampling; all metrics share its draws.
        level: Probability that the confidence interval is meant to have. None: no intervals,
            where groups are not independent.

    Raises:
        ValueError: If there are fewer than two groups or resamples, a metric has no token at
            all, or the level is no probability.
    """
    drawn = resampled_ratios(sums, counts, resamples=resamples, seed=seed)
    values = sums.sum(dim=0) / counts.sum(dim=0)
    without_each = ratios_without_each(sums, counts)
    variance = jackknife(values, without_each, counts / counts.sum(dim=0))
    return estimates_from(values, errors_of(drawn), variance, level)


@typed
def resampled_ratios(
    sums: Float[Tensor, "groups metrics"],
    counts: Float[Tensor, "groups metrics"],
    *,
    resamples: int,
    seed: int,
) -> Float[Tensor, "resamples metrics"]:
    """Each metric's mean per token in every resample; NaN in one without any of its tokens.

    Args:
        sums: As of `bootstrap_ratio`.
        counts: As of `bootstrap_ratio`.
        resamples: Number of bootstrap draws.
        seed: Decides which groups are drawn, by their number alone: whatever is measured on the
            same groups is resampled alike.

    Raises:
        ValueError: If there are fewer than two groups or resamples, or a metric has no token at
            all.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2 for a standard error; got {resamples}.")
    groups = sums.shape[0]
    if groups < 2:
        raise ValueError(f"sums must hold at least 2 groups to resample; got {groups}.")
    if not bool((counts.sum(dim=0) > 0).all()):
        raise ValueError("counts must be positive for every metric; one has no token at all.")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(groups, (resamples, groups), generator=generator).to(sums.device)
    times = torch.zeros(resamples, groups, dtype=sums.dtype, device=sums.device)
    times.scatter_add_(1, chosen, torch.ones_like(times))
    return (times @ sums) / (times @ counts)  # 0 / 0: a draw without a token says nothing


@typed
def errors_of(drawn: Float[Tensor, "resamples metrics"]) -> Float[Tensor, " metrics"]:
    """Standard deviation over the resamples that have a value; NaN where fewer than two have."""
    drawn = drawn.double()
    found = (~drawn.isnan()).sum(dim=0)
    squares = (drawn - drawn.nanmean(dim=0)).square().nansum(dim=0)
    return torch.where(found < 2, math.nan, squares / (found - 1)).sqrt()


@typed
def estimates_from(
    values: Float[Tensor, " metrics"],
    errors: Float[Tensor, " metrics"],
    variance: Variance,
    level: float | None = 0.95,
) -> list[Estimate]:
    """Estimates from their parts.

    Args:
        values: The estimates.
        errors: Their standard errors.
        variance: Of the values, for intervals; NaN where fewer than two groups have any token,
            so that there is no error either.
        level: Probability that the confidence intervals are meant to have; None: no intervals.

    Raises:
        ValueError: If the level is no probability.
    """
    known = ~(variance.amount.isnan() | errors.isnan())
    none = [None] * len(values)
    intervals = none if level is None else variance.intervals(values, level)
    return [
        Estimate(value, error if there else None, interval)
        for value, error, there, interval in zip(
            values.tolist(), errors.tolist(), known.tolist(), intervals, strict=True
        )
    ]
