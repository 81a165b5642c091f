"""Statistical tests: each rejects a correct part once in a million seeds."""

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
"""The probability of rejecting a correct part."""

LIMIT = 4.9
"""Standard errors that a normal variable exceeds with that probability, on either side."""


def chi_square_chance(counts: Tensor, expected: Tensor) -> float:
    """The p-value of a chi-square test.

    Outcomes with an expected count below five are merged, with the rarest other outcome if needed,
    since the test is an approximation for large counts.

    Args:
        counts: Observed count of each outcome.
        expected: Expected counts, with the same sum.
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
    """A bound on the p-value of the largest difference of two distribution functions.

    The bound 2 exp(-2 n d^2) is the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant.
    It holds for every n and every distribution, including those with atoms. For two samples
    n = n_1 n_2 / (n_1 + n_2), and the bound holds for many draws.

    Args:
        distance: The largest difference d of the two functions.
        first: Number of draws from one of them.
        second: Number of draws from the other; None if that function is known.
    """
    count = first if second is None else first * second / (first + second)
    return min(1.0, 2 * math.exp(-2 * count * distance**2))


def largest_correlation(first: Tensor, second: Tensor) -> float:
    """The largest absolute correlation between a column of one matrix and one of another."""
    first, second = (x - x.mean(dim=0) for x in (first, second))
    scale = first.square().mean(0).sqrt()[:, None] * second.square().mean(0).sqrt()
    return float((first.T @ second / len(first) / scale.clamp_min(1e-12)).abs().max())


def expect_equal_means(first: Tensor, second: Tensor, *, cause: str) -> None:
    """Require equal means of two sets of independent numbers, one number per position."""
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
