"""The refusals of a head, and their messages."""

import inspect

from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_refused, no_shape_checks
from calmkit.testing.heads.trial import COND, LATENT, HeadTrial

__all__ = [
    "batches_do_not_broadcast",
    "negative_numbers_of_samples_are_refused",
    "sampling_arguments_exist",
    "sizes_below_one_are_refused",
    "wrong_sizes_are_named",
]


@contract()
def sizes_below_one_are_refused(trial: HeadTrial) -> None:
    """A head cannot be built from a size below one."""
    for cond, latent in ((0, LATENT), (COND, 0)):
        rule = "sizes are at least 1"
        expect_refused(
            trial, trial.factory, cond, latent, naming="cond_size|latent_size", rule=rule
        )


@contract()
def wrong_sizes_are_named(trial: HeadTrial) -> None:
    """A condition or target of the wrong size is refused by name."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    wide = trial.problem((4,), LATENT + 1)[1]
    rule = f"cond has cond_size = {COND} features"
    for wrong in (cond[:, 1:], cond[:, :1]):
        expect_refused(trial, head.loss, wrong, target, naming="cond", rule=rule)
        expect_refused(trial, head.sample, wrong, 2, naming="cond", rule=rule)
    rule = f"the target has latent_size = {LATENT} dimensions"
    for wrong in (wide, target[:, :1]):
        expect_refused(
            trial, head.loss, cond, wrong, naming="target|mean|latent|samples", rule=rule
        )


@contract(applies=no_shape_checks)
def batches_do_not_broadcast(trial: HeadTrial) -> None:
    """Condition and target of different batch shapes are refused, even if they would broadcast."""
    head = trial.lively()
    for one, other in (((4,), (1,)), ((1,), (4,)), ((2, 4), (4,)), ((4,), (2, 4))):
        cond, target = trial.problem(one)[0], trial.problem(other)[1]
        rule = f"cond has batch {one}, the target {other}"
        naming = "cond|target|mean|batch|samples|latents|noise"
        remedy = "`self._checked_target(target, cond)` compares the two"
        expect_refused(trial, head.loss, cond, target, naming=naming, rule=rule, remedy=remedy)


@contract()
def negative_numbers_of_samples_are_refused(trial: HeadTrial) -> None:
    """A negative number of samples is refused by name; zero gives an empty result."""
    head = trial.lively()
    cond, _ = trial.problem((4,))
    rule = "it is at least 0"
    expect_refused(trial, head.sample, cond, -1, naming="num_samples|dimension", rule=rule)


@contract()
def sampling_arguments_exist(trial: HeadTrial) -> None:
    """`sampling_arguments` names keywords of the constructor."""
    kind = type(trial.build())
    keywords = set(list(inspect.signature(kind).parameters)[2:])
    expect(
        kind.sampling_arguments <= keywords,
        seen=f"sampling_arguments = {sorted(kind.sampling_arguments)}",
        expected=f"some of {sorted(keywords)}",
        cause="an argument was renamed, or is an argument of `sample` only",
    )
