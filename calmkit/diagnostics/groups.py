"""Means over points, with standard errors over groups."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.metrics import Estimate, bootstrap_ratio
from calmkit.typing import typed

__all__ = ["mean_over_groups", "within_two_errors"]


@typed
def mean_over_groups(values: Float[Tensor, " points"], groups: Int[Tensor, " points"]) -> Estimate:
    """The mean over points, with its standard error from resampled groups.

    Args:
        values: A number for each point.
        groups: Document (or row) of each point; points of one document are not independent.

    Raises:
        ValueError: If all points are from one group.
    """
    names, group = groups.unique(return_inverse=True)
    sums = torch.zeros(len(names), 1, dtype=torch.float64, device=values.device)
    counts = torch.zeros_like(sums)
    sums.index_add_(0, group, values.double()[:, None])
    counts.index_add_(0, group, torch.ones_like(values, dtype=torch.float64)[:, None])
    return bootstrap_ratio(sums, counts)[0]


def within_two_errors(estimate: Estimate) -> bool:
    """Whether a mean is at most two standard errors; more is chance in one case of forty."""
    return estimate.value <= 2 * (estimate.standard_error or 0.0)
