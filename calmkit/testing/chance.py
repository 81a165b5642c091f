"""Statistics of checks by many draws: each is wrong about a right part once in a million seeds."""

import math

import torch
from torch import Tensor

from calmkit.testing.contract import expect

__all__ = [
    "CHANCE",
    "LIMIT",
    "chi_square_chance",
    "expect_equal_means",
    "kolmogorov_chance",
    "largest_correlation",
]

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


def kolmogorov_chance(distance: float, first: int, second: int | None = None) -> float:
    """A bound on the chance of two distribution functions as far apart, or farther.

    2 exp(-2 n d^2), the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant: it holds
    for every n and every law, those with atoms too. Of two samples, n is that of the means of
    both, and the bound holds for many draws.

    Args:
        distance: The largest difference d of the two functions.
        first: Draws of one of them.
        second: Draws of the other one; None if it is known.
    """
    count = first if second is None else first * second / (first + second)
    return min(1.0, 2 * math.exp(-2 * count * distance**2))


def largest_correlation(first: Tensor, second: Tensor) -> float:
    """The largest correlation of a column of one matrix with a column of another."""
    first, second = (x - x.mean(dim=0) for x in (first, second))
    scale = first.square().mean(0).sqrt()[:, None] * second.square().mean(0).sqrt()
    return float((first.T @ second / len(first) / scale.clamp_min(1e-12)).abs().max())


def expect_equal_means(first: Tensor, second: Tensor, *, cause: str) -> None:
    """Two sets of independent numbers, one for each position, have the same mean."""
    rows = len(first)
    difference = float(first.mean() - second.mean())
    error = float((first.var() + second.var()).sqrt()) / rows**0.5
    expect(
        abs(difference) <= LIMIT * error + 1e-9,
        seen=f"the two means over {rows} positions differ by {difference:.4g}, "
        f"{abs(difference) / max(error, 1e-300):.1f} standard errors",
        expected=f"at most {LIMIT} standard errors",
        cause=cause,
    )
