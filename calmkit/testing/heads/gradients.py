"""Trainability of a head: gradients for all parameters, finite for any target."""

import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.testing.contract import Broken, contract, expect
from calmkit.testing.expecting import expect_finite
from calmkit.testing.heads.trial import HeadTrial
from calmkit.testing.modules import expect_all_learn, expect_finite_gradients

__all__ = ["any_target_has_a_finite_loss", "every_parameter_learns", "the_condition_learns"]


@contract()
def every_parameter_learns(trial: HeadTrial) -> None:
    """Each parameter has finite gradients, at least one of them nonzero over ten targets."""
    head = trial.build()
    expect_all_learn(head, trial.train(head, steps=10))


@contract()
def the_condition_learns(trial: HeadTrial) -> None:
    """The loss has a finite gradient in the condition, which trains the backbone."""
    head = trial.lively()
    cond, target = trial.problem((16,))
    cond.requires_grad_()
    trial.loss(head, cond, target).sum().backward()
    if cond.grad is None:
        raise Broken(
            seen="no gradient",
            expected="a gradient for the condition",
            cause="the condition is detached, or the loss does not read it",
        )
    expect_finite(cond.grad, what="the condition's gradient", cause="a norm or a root at zero")
    expect(
        (cond.grad != 0).any(),
        seen="the condition's gradient is zero at all 16 positions",
        expected="one that is not, for some target",
        cause="the condition is rounded, or multiplied by zero, before it reaches the loss",
    )


@contract(searches=True)
def any_target_has_a_finite_loss(trial: HeadTrial) -> None:
    """Loss and gradients are finite for near, far, wide and narrow targets and point masses."""
    head = trial.lively()

    def check(example: tuple[float, float]) -> None:
        scale, std = example
        cond, target = trial.problem((4,))
        mean = scale * target.mean
        loss = trial.loss(head, cond, DiagonalGaussian(mean, torch.full_like(mean, std)))
        where = f"at targets of scale {scale:g} and std {std:g}"
        cause = (
            "a division by a zero std, its logarithm, a norm at zero, or a square that overflows"
        )
        expect_finite(loss, what=f"the loss {where}", cause=cause)
        expect_finite_gradients(head, loss, where=f" {where}", cause=cause)

    scales, stds = (0.0, 1e-6, 1e-2, 1.0, 1e2, 1e4), (0.0, 1e-8, 1e-3, 0.3, 1.0, 1e2)
    trial.search(lambda st: st.tuples(*map(st.sampled_from, (scales, stds))), check)
