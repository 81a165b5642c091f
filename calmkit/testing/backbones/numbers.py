"""A backbone's arithmetic: gradients, dtypes, saved states and compilation."""

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.testing.backbones.trial import BackboneTrial
from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract
from calmkit.testing.expecting import expect_dtype, expect_unchanged
from calmkit.testing.modules import (
    autocast,
    expect_all_learn,
    expect_small_error,
    expect_the_same_loaded,
    gradients_of_training,
)

__all__ = [
    "arguments_are_left_alone",
    "autocast_is_close",
    "compiles",
    "dtype_is_kept",
    "every_parameter_learns",
    "saved_and_loaded_it_is_the_same",
]


@contract()
def every_parameter_learns(trial: BackboneTrial) -> None:
    """Each parameter gets a gradient that is finite, and not zero for every one of ten inputs."""
    backbone = trial.build().train()

    def loss(step: int) -> Tensor:
        vectors, weights = trial.vectors(2, 5, step), trial.vectors(2, 5, 100 + step)
        return (trial.states(backbone, vectors) * weights).sum()

    expect_all_learn(backbone, gradients_of_training(backbone, loss))


@contract()
def arguments_are_left_alone(trial: BackboneTrial) -> None:
    """Vectors are read, never written."""
    backbone, vectors = trial.build(), trial.vectors(2, 5)
    before = vectors.clone()
    with torch.no_grad():
        trial.states(backbone, vectors)
    expect_unchanged([before], [vectors], names="vectors")


@contract()
@torch.no_grad()
def dtype_is_kept(trial: BackboneTrial) -> None:
    """States have the dtype of model and vectors, and are close to those of float64."""
    x = trial.vectors(2, 5)
    want = trial.states(trial.build(), x)
    for dtype, most in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
        got = trial.states(trial.build().to(dtype), x.to(dtype))
        cause = "a tensor is made without dtype=, or a sum runs in the low precision"
        expect_dtype(got, dtype, what="what it returns", cause=cause)
        expect_small_error(got, want, most, what=f"states in {dtype}", cause=cause)


@contract()
@torch.no_grad()
def autocast_is_close(trial: BackboneTrial) -> None:
    """Under bfloat16 autocast states are close to those without."""
    backbone, x = trial.build().float(), trial.vectors(2, 5).float()
    want = trial.states(backbone, x)
    with autocast():
        got = trial.states(backbone, x)
    cause = "positions, angles or a long sum are computed in bfloat16"
    expect_small_error(got, want, 0.05, what="states", cause=cause)


@contract()
@torch.no_grad()
def saved_and_loaded_it_is_the_same(trial: BackboneTrial) -> None:
    """A new backbone that loads a saved state gives the same states."""
    x = trial.vectors(2, 5)
    results = {"states": lambda part: trial.states(part, x)}
    expect_the_same_loaded(trial, trial.build(), trial.build(number=1), results)


@contract()
def compiles(trial: BackboneTrial) -> None:
    """Over packed documents it is one graph for torch.compile, with the same gradient."""
    backbone = trial.build()
    x = trial.vectors(2, 6).requires_grad_()
    mask = AttentionMask.packed([(2, 4), (6,)])
    name = type(backbone).__name__
    expect_one_graph(trial, lambda: backbone(x, mask), name=name, wrt=x)
