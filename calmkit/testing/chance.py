"""Statistics of checks by many draws: each is wrong about a right part once in a million seeds."""

import torch
from torch import Tensor

__all__ = ["CHANCE", "LIMIT", "chi_square_chance", "standard_errors"]

CHANCE = 1e-6
"""How often a check may reject a right part."""

LIMIT = 4.9
"""Standard errors that a normal number exceeds with that chance, on either side."""


def standard_errors(numbers: Tensor) -> float:
    """How many standard errors the mean of independent numbers is away from zero."""
    error = float(numbers.std()) / len(numbers) ** 0.5
    mean = float(numbers.mean())
    return mean / error if error > 0 else (0.0 if mean == 0 else float("inf"))


def chi_square_chance(counts: Tensor, expected: Tensor, *, fitted: int = 0) -> float:
    """The chance of counts as far from what is expected, or farther.

    Args:
        counts: How often each outcome occurred.
        expected: How often it should have; at least about five times each.
        fitted: Numbers that were fitted to the counts, besides their sum.
    """
    statistic = ((counts - expected).square() / expected).sum()
    degrees = torch.tensor((counts.numel() - 1 - fitted) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, statistic.double() / 2))
