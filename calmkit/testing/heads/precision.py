"""Dtypes: kept, and survived."""

import torch

from calmkit.testing.contract import contract
from calmkit.testing.expecting import expect_dtype, expect_finite, expect_same
from calmkit.testing.heads.trial import HeadTrial
from calmkit.testing.modules import autocast, expect_finite_gradients
from calmkit.testing.trial import neutral

__all__ = ["autocast_is_close", "bfloat16_is_finite", "dtype_is_kept"]

_ROUNDED = "a root, a norm or a division at a number that bfloat16 rounds to zero"


@contract()
def dtype_is_kept(trial: HeadTrial) -> None:
    """Loss and samples have the dtype of head and arguments, whatever torch's default is."""
    for dtype, default in ((torch.float32, torch.float64), (torch.float64, torch.float32)):
        head = trial.lively(dtype=dtype)
        cond, target = trial.problem((4,), dtype=dtype)
        with neutral(trial.seed, default):
            for what, got in (
                ("the loss", trial.loss(head, cond, target)),
                ("what sample returns", trial.sample(head, cond, 2)),
            ):
                cause = "a tensor is made without dtype=, or cast to a fixed one"
                expect_dtype(got, dtype, what=what, cause=cause)


@contract()
def autocast_is_close(trial: HeadTrial) -> None:
    """Under bfloat16 autocast the loss is float32 and close to that without; samples are finite.

    Also where the layer before left its output in bfloat16.
    """
    head = trial.lively(dtype=torch.float32)
    cond, target = trial.problem((4,), dtype=torch.float32)
    want = trial.loss(head, cond, target)
    for given in (cond, cond.bfloat16()):
        with autocast():
            loss = trial.loss(head, given, target)
            samples = trial.sample(head, given, 2)
        cause = "the loss is reduced in bfloat16; cast what enters it to float32"
        expect_dtype(loss, torch.float32, what="the loss", cause=cause)
        than = "without autocast, to a tenth"
        expect_same(loss, want, what="the loss", than=than, cause=cause, rtol=0.1, atol=0.1)
        expect_finite(samples, what="samples", cause="an exponential that overflows in bfloat16")
        expect_finite_gradients(head, loss, where=" in bfloat16", cause=_ROUNDED)


@contract()
def bfloat16_is_finite(trial: HeadTrial) -> None:
    """A head cast to bfloat16 has a finite loss and gradients, and bfloat16 samples."""
    head = trial.lively(dtype=torch.bfloat16)
    cond, target = trial.problem((4,), dtype=torch.bfloat16)
    loss, samples = trial.loss(head, cond, target), trial.sample(head, cond, 2)
    expect_finite(loss, what="the loss", cause="a quantity that underflows to zero in bfloat16")
    expect_finite(samples, what="samples", cause="a quantity that overflows in bfloat16")
    cause = "noise or constants are made in another dtype than the condition's"
    expect_dtype(samples, torch.bfloat16, what="what sample returns", cause=cause)
    expect_finite_gradients(head, loss, where=" in bfloat16", cause=_ROUNDED)
