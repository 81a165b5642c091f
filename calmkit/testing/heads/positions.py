"""The dependence of a position's loss and samples on its arguments."""

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.testing.contract import contract
from calmkit.testing.expecting import expect_different, expect_same
from calmkit.testing.heads.trial import HeadTrial

__all__ = ["positions_do_not_mix", "the_condition_is_read"]

_OTHERS = [0, 1, 3]


@contract()
def the_condition_is_read(trial: HeadTrial) -> None:
    """With the same seed, another condition gives another loss and other samples."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    another = trial.problem((4,), number=2)[0]
    cause = "the condition is ignored, or what reads it is multiplied by zero"
    with torch.no_grad():
        first, other = (trial.loss(head, c, target) for c in (cond, another))
        expect_different(other, first, what="the loss", than="with another condition", cause=cause)
        first, other = (trial.sample(head, c, 3) for c in (cond, another))
    than = "with another condition"
    expect_different(other, first, what="what sample returns", than=than, cause=cause)


@contract()
def positions_do_not_mix(trial: HeadTrial) -> None:
    """Loss and samples of a position depend only on its own condition and target."""
    head = trial.lively()
    cond, target = trial.problem((4,))

    def changed(tensor: Tensor) -> Tensor:
        other = tensor.clone()
        other[2] += 1
        return other

    cause = (
        "an operation along a batch axis: a normalisation over the batch, a softmax or a sum "
        "along the wrong axis, or rows in another order"
    )
    with torch.no_grad():
        for what, run in (
            ("the loss", lambda c, m: trial.loss(head, c, DiagonalGaussian(m, target.std))),
            ("samples", lambda c, m: trial.sample(head, c, 3).transpose(0, 1)),
        ):
            want = run(cond, target.mean)
            for name, got in (
                ("condition", run(changed(cond), target.mean)),
                ("target", run(cond, changed(target.mean))),
            ):
                expect_same(
                    got[_OTHERS],
                    want[_OTHERS],
                    what=f"{what} of the other three positions",
                    than=f"before the {name} of position 2 was changed",
                    cause=cause,
                )
