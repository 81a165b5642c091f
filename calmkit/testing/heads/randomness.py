"""The randomness of a head: its source, and the independence of samples."""

import torch

from calmkit.testing.chance import LIMIT, largest_correlation
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import (
    expect_different,
    expect_same,
    expect_untouched_randomness,
)
from calmkit.testing.heads.trial import COND, HeadTrial

__all__ = [
    "global_randomness_is_left_alone",
    "loss_depends_on_seed",
    "same_seed_same_numbers",
    "samples_are_independent",
    "samples_depend_on_seed",
]

_GLOBAL = "a call such as torch.randn without generator=, or dropout"


@contract()
def same_seed_same_numbers(trial: HeadTrial) -> None:
    """Two generators with one seed give the same loss and the same samples."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    for what, run in (
        ("the loss", lambda: trial.call(head.loss, cond, target, trial.generator())),
        ("samples", lambda: trial.call(head.sample, cond, 3, trial.generator())),
    ):
        first, again = run(), run()
        expect_same(again, first, what=what, than="from the same seed before", cause=_GLOBAL)


@contract()
def global_randomness_is_left_alone(trial: HeadTrial) -> None:
    """Given a generator, a head neither reads nor advances torch's global one."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    for run in (
        lambda: trial.call(head.loss, cond, target, trial.generator()),
        lambda: trial.call(head.sample, cond, 3, trial.generator()),
    ):
        expect_untouched_randomness(run, cause=_GLOBAL)


@contract()
def loss_depends_on_seed(trial: HeadTrial) -> None:
    """A loss that is estimated by draws changes with the seed."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    first, other = (trial.loss(head, cond, target, number=number) for number in (0, 1))
    cause = (
        "the loss draws from a generator of its own with a fixed seed; if it is a closed form "
        "that draws nothing, exempt the head from this contract"
    )
    expect_different(other, first, what="the loss", than="from another seed", cause=cause)


@contract()
def samples_depend_on_seed(trial: HeadTrial) -> None:
    """Another seed gives other samples."""
    head = trial.lively()
    cond, _ = trial.problem((4,))
    first, other = (trial.sample(head, cond, 3, number=number) for number in (0, 1))
    cause = "the samples come from a generator with a fixed seed, or from no noise at all"
    expect_different(other, first, what="what sample returns", than="from another seed",
                     cause=cause)  # fmt: skip


@contract()
def samples_are_independent(trial: HeadTrial) -> None:
    """Samples of one position are independent of each other, and of those of other positions."""
    head = trial.lively()
    rows = min(trial.rows(head, samples=2), 5_000)
    cond = torch.randn(1, COND, generator=trial.generator(3)).expand(rows, -1).contiguous()
    with torch.no_grad():
        samples = trial.sample(head, cond, 2)
    pairs = {
        "two samples of one position": (samples[0], samples[1]),
        "samples of neighbouring positions": (samples[0, 1:], samples[0, :-1]),
    }
    for what, (first, second) in pairs.items():
        expect(
            not bool((first == second).all(dim=-1).all()),
            seen=f"{what} are equal, in each of {len(first)} pairs",
            expected="draws that differ",
            cause="one noise is drawn and used for all samples or positions",
        )
        worst = largest_correlation(first, second)
        # The largest of nine correlations, each wrong once in a million.
        limit = LIMIT / len(first) ** 0.5
        expect(
            worst < limit + 0.01,
            seen=f"{what} have a correlation of {worst:.3f} over {len(first)} pairs",
            expected=f"one below {limit + 0.01:.3f}",
            cause="noise that is shared in part, or mirrored, between samples or positions",
        )
