"""The law of a noise: its mean, its independence, and its distribution function."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from calmkit.testing.chance import CHANCE, LIMIT, kolmogorov_chance, largest_correlation
from calmkit.testing.contract import contract, expect
from calmkit.testing.noises.trial import NoiseTrial

__all__ = [
    "law_is_that_stated",
    "mean_is_zero",
    "numbers_are_independent",
    "one_law_for_every_shape_and_place",
]


@contract()
def mean_is_zero(trial: NoiseTrial) -> None:
    """The numbers vary, and their mean is zero."""
    got = trial.draw(trial.build(), (4 * trial.profile.rows,))
    spread, mean = float(got.std()), float(got.mean())
    cause = "one number is drawn for all places"
    expect(spread > 0, seen=f"{len(got)} numbers equal to {mean:.3g}", expected="others",
           cause=cause)  # fmt: skip
    error = spread / len(got) ** 0.5
    expect(
        abs(mean) <= LIMIT * error,
        seen=f"the mean of {len(got)} numbers is {mean:.4g}, {abs(mean) / error:.1f} standard "
        "errors from zero",
        expected=f"at most {LIMIT} standard errors",
        cause="a law on the positive numbers, or one that is not shifted to its mean",
    )


@contract()
def numbers_are_independent(trial: NoiseTrial) -> None:
    """Along every axis neighbours are independent: their values, and the squares of these."""
    rows = trial.profile.rows
    draws = trial.draw(trial.build(), (rows, 3, 2))
    first, second = draws[:, :, 0], draws[:, :, 1]
    pairs = {
        "the last axis": (first, second),
        "the middle axis": (draws[:, 0], draws[:, 1]),
        "the first axis": (first[1:], first[:-1]),
    }
    for axis, pair in pairs.items():
        for what, change in (("numbers", Tensor.clone), ("squares", Tensor.square)):
            worst = largest_correlation(change(pair[0]), change(pair[1]))
            limit = LIMIT / len(pair[0]) ** 0.5 + 0.01
            expect(
                worst < limit,
                seen=f"{what} of neighbours along {axis} have a correlation of {worst:.3f} over "
                f"{len(pair[0])} pairs",
                expected=f"one below {limit:.3f}",
                cause="numbers that are shared, mirrored or ordered, or that are divided by the "
                "norm or shifted by the mean of those drawn with them",
            )


@contract()
def one_law_for_every_shape_and_place(trial: NoiseTrial) -> None:
    """The first and the last number of a vector of four have the law of one drawn alone."""
    rows, noise = trial.profile.rows, trial.build()
    vectors = trial.draw(noise, (rows, 4), number=1)
    for what, other, place in (
        ("numbers drawn with shape (n, 1)", trial.draw(noise, (rows, 1), number=2)[:, 0], 0),
        ("numbers drawn with shape (n,)", trial.draw(noise, (rows,), number=3), -1),
    ):
        for name, apart in (
            ("values", _largest_gap(vectors[:, place], other)),
            ("neighbours' sums", _largest_gap(vectors[1:, place] + vectors[:-1, place],
                                              other[1:] + other[:-1])),
        ):  # fmt: skip
            chance = kolmogorov_chance(apart, rows, rows)
            expect(
                chance > CHANCE,
                seen=f"the distribution functions of the {name} of {what} and of place {place} "
                f"of vectors of four differ by up to {apart:.3f}, over {rows} draws each",
                expected=f"one law; that far apart they are with a chance of {chance:.1g}",
                cause="a scale or a shift that depends on how many numbers are drawn at once, or "
                "on their place",
            )


def _unstated(trial: NoiseTrial) -> str | None:
    return None if hasattr(trial.build(), "cdf") else "the noise has no cdf, which states its law"


@contract(applies=_unstated)
def law_is_that_stated(trial: NoiseTrial) -> None:
    """Draws have the distribution function `cdf`, in float64 and in float32."""
    noise = trial.build()
    cdf = cast(Callable[[Tensor], Tensor], noise.cdf)  # pyrefly: ignore[missing-attribute]
    for dtype in (torch.float64, torch.float32):
        draws = trial.draw(noise, (4 * trial.profile.rows,), dtype=dtype).double()
        values, counts = draws.unique(return_counts=True)
        reached = counts.cumsum(0) / len(draws)
        # At a value and just below it: laws may have atoms.
        below = torch.cat([torch.zeros(1), reached[:-1]])
        just_below = values.nextafter(torch.full_like(values, -torch.inf))
        at, before = trial.call(cdf, values), trial.call(cdf, just_below)
        apart = float(torch.stack([(reached - at).abs(), (below - before).abs()]).max())
        chance = kolmogorov_chance(apart, len(draws))
        expect(
            chance > CHANCE,
            seen=f"the distribution functions of {len(draws)} draws in {dtype} and of cdf differ "
            f"by up to {apart:.3f}",
            expected=f"one law; that far apart they are with a chance of {chance:.1g}",
            cause="another scale (a variance for a standard deviation, a width for half a width), "
            "or another law",
        )


def _largest_gap(first: Tensor, second: Tensor) -> float:
    """The largest difference of two empirical distribution functions."""
    values = torch.cat([first, second]).unique()
    shares = [torch.searchsorted(x.sort().values, values, right=True) / len(x)
              for x in (first, second)]  # fmt: skip
    return float((shares[0] - shares[1]).abs().max())
