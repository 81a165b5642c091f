"""The density of a head: normalisation, and agreement with its samples."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from calmkit.heads import Head
from calmkit.testing.chance import CHANCE, chi_square_chance
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_refused, expect_same, expect_shape
from calmkit.testing.heads.trial import COND, LATENT, HeadTrial

__all__ = ["density_integrates_to_one", "density_of_each_position", "samples_follow_the_density"]

_BINS = 20
# The density of an untrained network may be too sharp for a grid or a solver.
_TRAINING = {"steps": 300, "lr": 0.01}
# Along each side of a grid in two dimensions.
_POINTS = 101


def _without_density(trial: HeadTrial) -> str | None:
    if hasattr(trial.build(), "log_prob"):
        return None
    return "the head has no log_prob"


def _no_affordable_density(trial: HeadTrial) -> str | None:
    """A training costs more than its rows: each step reads and writes all weights many times."""
    head = trial.build()
    rows = 100 * _TRAINING["steps"] + _POINTS**2 * (head.evaluations_per_sample or 1)
    return _without_density(trial) or trial.too_much(head, rows=int(rows), samples=0)


@contract(applies=_without_density)
def density_of_each_position(trial: HeadTrial) -> None:
    """`log_prob` has one value per position, independent of others, and refuses wrong sizes."""
    head = trial.lively()
    for batch in ((), (4,), (2, 3)):
        cond, target = trial.problem(batch)
        value = trial.call(_density_of(head), cond, target.mean)
        cause = "the sum over dimensions is missing, or over another axis than the last"
        expect_shape(value, batch, what="log_prob", cause=cause)
    cond, target = trial.problem((4,))
    changed = target.mean.clone()
    changed[2] += 1
    want, got = (trial.call(_density_of(head), cond, x)[[0, 1, 3]] for x in (target.mean, changed))
    than = "before the latent of position 2 was changed"
    cause = "an operation along a batch axis"
    expect_same(got, want, what="log_prob of the other positions", than=than, cause=cause)
    for wrong, naming, rule in (
        ((cond, target.mean[:, 1:]), "latents", f"latents have {LATENT} dimensions"),
        ((cond[:, 1:], target.mean), "cond", f"cond has {COND} features"),
    ):
        expect_refused(trial, _density_of(head), *wrong, naming=naming, rule=rule)


@contract(applies=_no_affordable_density)
def density_integrates_to_one(trial: HeadTrial) -> None:
    """In one and two dimensions exp(log_prob) integrates to one, within two per cent."""
    for latent, points in ((1, 801), (2, _POINTS)):
        head = trial.lively(latent, **_TRAINING)
        cond, sides = _box(trial, head, latent, points)
        grid = torch.cartesian_prod(*sides).view(-1, latent)
        with torch.no_grad():
            density = trial.call(_density_of(head), cond.expand(len(grid), COND), grid).exp()
        cell = float(torch.stack([side[1] - side[0] for side in sides]).prod())
        total = float(density.sum()) * cell
        expect(
            abs(total - 1) < 0.02,  # a solver of few steps is off by one per cent
            seen=f"the integral over {latent} dimensions is {total:.4f}",
            expected="1, within 0.02",
            cause="a constant of the logarithm is missing (log 2 pi, the log of a scale, the "
            "determinant of a map), or dimensions are averaged where they are summed",
        )


@contract(applies=_no_affordable_density)
def samples_follow_the_density(trial: HeadTrial) -> None:
    """In one dimension the samples' quantiles under the head's own density are uniform."""
    head = trial.lively(1, **_TRAINING)
    rows = min(trial.rows(head, samples=1), 20_000)
    for number in (3, 4, 5):
        counts = _quantile_counts(trial, head, rows, number)
        chance = chi_square_chance(counts, torch.full_like(counts, rows / _BINS))
        shares = ", ".join(f"{_BINS * x / rows:.2f}" for x in counts.tolist())
        expect(
            chance > CHANCE,
            seen=f"of {rows} samples, the 20 quantiles of the density hold these shares of what "
            f"they should: {shares}",
            expected=f"shares near 1; these have a chance of {chance:.1g}",
            cause="sample and log_prob read the network's output differently: a variance for a "
            "standard deviation, a temperature in one of them, a solver with too few steps",
        )


def _quantile_counts(trial: HeadTrial, head: Head, rows: int, number: int) -> Tensor:
    """Number of samples in each of 20 quantiles of the density, for one condition."""
    cond, (side,) = _box(trial, head, 1, 2001, number)
    with torch.no_grad():
        density = _density_of(head)(cond.expand(len(side), COND), side[:, None]).exp()
        samples = trial.sample(head, cond.expand(rows, COND), 1).flatten()
    below = torch.cumulative_trapezoid(density, side)
    place = torch.searchsorted(side, samples.contiguous()).clamp(1, len(below))
    return torch.histc((below / below[-1])[place - 1], _BINS, 0, 1)


def _density_of(head: Head) -> Callable[..., Tensor]:
    return cast(Callable[..., Tensor], head.log_prob)


def _box(
    trial: HeadTrial, head: Head, latent: int, points: int, number: int = 3
) -> tuple[Tensor, list[Tensor]]:
    """One condition, and for each dimension a grid wide enough for the usual tails."""
    cond = torch.randn(COND, generator=trial.generator(number))
    with torch.no_grad():
        samples = trial.sample(head, cond, 2_000, number=9)
    low, high, spread = samples.amin(0), samples.amax(0), samples.std(0)
    return cond, [
        torch.linspace(float(low[i] - 5 * spread[i]), float(high[i] + 5 * spread[i]), points)
        for i in range(latent)
    ]
