"""Statistics of checks by many draws: each is wrong about a right part once in a million seeds."""

import torch
from torch import Tensor

__all__ = ["CHANCE", "LIMIT", "chi_square_chance"]

CHANCE = 1e-6
"""How often a check may reject a right part."""

LIMIT = 4.9
"""Standard errors that a normal number exceeds with that chance, on either side."""


def chi_square_chance(counts: Tensor, expected: Tensor) -> float:
    """The chance of counts as far from what is expected, or farther.

    Outcomes that are expected less than five times are counted together, the last of the others
    among them if need be: the test is an approximation for large numbers.

    Args:
        counts: How often each outcome occurred.
        expected: How often it should have; of the same sum.
    """
    order = expected.argsort(descending=True)
    counts, expected = counts[order].double(), expected[order].double()
    kept = int((expected >= 5).sum())
    if kept < len(expected) and float(expected[kept:].sum()) < 5:
        kept -= 1
    counts, expected = (_with_a_rest(x, kept) for x in (counts, expected))
    statistic = ((counts - expected).square() / expected).sum()
    degrees = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(degrees, statistic / 2))


def _with_a_rest(numbers: Tensor, kept: int) -> Tensor:
    if kept == len(numbers):
        return numbers
    return torch.cat([numbers[:kept], numbers[kept:].sum(dim=0, keepdim=True)])
