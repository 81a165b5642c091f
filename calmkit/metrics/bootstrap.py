"""Standard errors and confidence intervals by resampling whole documents.

Tokens of one document are not independent, documents are. A mean over tokens is a ratio of two
sums over documents; the bootstrap draws as many documents with replacement and recomputes the
ratio, many times over. The standard deviation of what comes out is the standard error, and its
central part is the confidence interval (the percentile interval: with few documents it is a
little too narrow).

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["Estimate", "bootstrap_ratio", "estimates_from", "resampled_ratios"]


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: The estimate.
        standard_error: Its standard deviation over resampled documents.
        interval: Confidence interval, the central part of the same; None where none was found.
    """

    value: float
    standard_error: float
    interval: tuple[float, float] | None = None

    def scaled(self, factor: float) -> "Estimate":
        """The same in other units; the factor must not be negative."""
        low_high = self.interval and (factor * self.interval[0], factor * self.interval[1])
        return Estimate(factor * self.value, factor * self.standard_error, low_high)


@typed
def bootstrap_ratio(
    sums: Float[Tensor, "groups metrics"],
    counts: Float[Tensor, "groups metrics"],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> list[Estimate]:
    """Mean per token of each metric, with its standard error and interval over groups.

    Args:
        sums: Sum of each metric over the tokens of each group (document).
        counts: Number of tokens that each sum runs over.
        resamples: Number of bootstrap draws.
        seed: Of the resampling; all metrics share its draws.
        level: Probability that the confidence interval is meant to have.

    Raises:
        ValueError: If there are fewer than two groups or resamples, a metric has no token at
            all, or the level is no probability.
    """
    drawn = resampled_ratios(sums, counts, resamples=resamples, seed=seed)
    return estimates_from(sums.sum(dim=0) / counts.sum(dim=0), drawn, level)


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
def estimates_from(
    values: Float[Tensor, " metrics"],
    drawn: Float[Tensor, "resamples metrics"],
    level: float = 0.95,
) -> list[Estimate]:
    """Estimates from their values and what these were in every resample.

    Args:
        values: The estimates.
        drawn: What they were in each resample; NaN where one had no value. The error and the
            interval of a metric are NaN if it had fewer than two.
        level: Probability that the confidence intervals are meant to have.

    Raises:
        ValueError: If the level is no probability.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1); got {level}.")
    drawn = drawn.double()
    found = (~drawn.isnan()).sum(dim=0)
    squares = (drawn - drawn.nanmean(dim=0)).square().nansum(dim=0)
    errors = torch.where(found < 2, math.nan, squares / (found - 1)).sqrt()
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=drawn.dtype)
    low, high = (
        torch.nanquantile(drawn, ends.to(drawn.device), dim=0).where(found >= 2, math.nan).tolist()
    )
    return [
        Estimate(value, error, interval)
        for value, error, interval in zip(
            values.tolist(), errors.tolist(), zip(low, high, strict=True), strict=True
        )
    ]
