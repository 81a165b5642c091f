"""Standard errors by resampling whole documents.

Tokens of one document are not independent, documents are. A mean over tokens is a ratio of two
sums over documents; the bootstrap draws as many documents with replacement, recomputes the ratio
and reports its standard deviation over many such draws.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.typing import typed

__all__ = ["Estimate", "bootstrap_ratio"]


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: The estimate.
        standard_error: Its standard deviation over resampled documents.
    """

    value: float
    standard_error: float


@typed
def bootstrap_ratio(
    sums: Float[Tensor, "groups metrics"],
    counts: Float[Tensor, "groups metrics"],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Estimate]:
    """Mean per token of each metric, with its standard error over groups.

    Args:
        sums: Sum of each metric over the tokens of each group (document).
        counts: Number of tokens that each sum runs over.
        resamples: Number of bootstrap draws.
        seed: Of the resampling; all metrics share its draws.

    Raises:
        ValueError: If there are fewer than two groups or resamples, or a metric has no token
            at all.
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
    drawn_sums, drawn_counts = times @ sums, times @ counts
    # A draw without any token of a metric says nothing on it.
    says = drawn_counts > 0
    return [
        Estimate(float(value), float((drawn_sums[s, m] / drawn_counts[s, m]).std()))
        for m, (value, s) in enumerate(zip(sums.sum(0) / counts.sum(0), says.T, strict=True))
    ]
