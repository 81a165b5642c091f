"""Saving, loading and compiling a head."""

import torch

from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract
from calmkit.testing.heads.trial import HeadTrial
from calmkit.testing.modules import expect_the_same_loaded

__all__ = ["loss_compiles", "sampling_compiles", "saved_and_loaded_it_is_the_same"]

# Of the network, for a sample: a tenth of a second each to trace.
_MOST_EVALUATIONS = 25


@contract()
def saved_and_loaded_it_is_the_same(trial: HeadTrial) -> None:
    """A new head that loads a saved state gives the same loss and samples."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    results = {
        "the loss": lambda part: trial.loss(part, cond, target),
        "samples": lambda part: trial.sample(part, cond, 2),
    }
    expect_the_same_loaded(trial, head, trial.build(number=1), results)


@contract()
def loss_compiles(trial: HeadTrial) -> None:
    """The loss is one graph for torch.compile with fullgraph=True."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    expect_one_graph(trial, lambda: head.loss(cond, target), name=f"{type(head).__name__}.loss")


def _long_graph(trial: HeadTrial) -> str | None:
    count = trial.build().evaluations_per_sample
    if trial.profile.trains or count is None or count <= _MOST_EVALUATIONS:
        return None
    return f"{count} evaluations are traced one by one: from the profile standard on"


@contract(applies=_long_graph)
def sampling_compiles(trial: HeadTrial) -> None:
    """Sampling is one graph for torch.compile with fullgraph=True, with the same samples."""
    head = trial.lively()
    cond, _ = trial.problem((4,))
    with torch.no_grad():
        expect_one_graph(trial, lambda: head.sample(cond, 2), name=f"{type(head).__name__}.sample")
