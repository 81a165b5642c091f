"""A head as torch sees it: a state that is saved, and a function that is compiled."""

import io

import torch

from calmkit.testing.compiling import expect_one_graph
from calmkit.testing.contract import contract
from calmkit.testing.expecting import expect_same
from calmkit.testing.heads.trial import HeadTrial

__all__ = ["loss_compiles", "sampling_compiles", "saved_and_loaded_it_is_the_same"]


@contract()
def saved_and_loaded_it_is_the_same(trial: HeadTrial) -> None:
    """A new head that loads a saved state gives the same loss and samples."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    other = trial.build(number=1)
    trial.call(other.load_state_dict, torch.load(file, weights_only=True))
    cause = "a tensor that training changes is neither a parameter nor a persistent buffer"
    for what, run in (
        ("the loss", lambda h: trial.loss(h, cond, target)),
        ("samples", lambda h: trial.sample(h, cond, 2)),
    ):
        expect_same(run(other), run(head), what=what, than="of the saved head", cause=cause)


@contract()
def loss_compiles(trial: HeadTrial) -> None:
    """The loss is one graph for torch.compile with fullgraph=True."""
    head = trial.lively()
    cond, target = trial.problem((4,))
    expect_one_graph(trial, lambda: head.loss(cond, target), name=f"{type(head).__name__}.loss")


@contract()
def sampling_compiles(trial: HeadTrial) -> None:
    """Sampling is one graph for torch.compile with fullgraph=True, and draws the same."""
    head = trial.lively()
    cond, _ = trial.problem((4,))
    with torch.no_grad():
        expect_one_graph(trial, lambda: head.sample(cond, 2), name=f"{type(head).__name__}.sample")
