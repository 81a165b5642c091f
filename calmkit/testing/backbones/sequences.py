"""What a hidden state may depend on: earlier vectors of its own row and document."""

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.testing.backbones.trial import HIDDEN, BackboneTrial
from calmkit.testing.contract import contract, expect
from calmkit.testing.expecting import expect_refused, expect_same, expect_shape
from calmkit.testing.first_use import use_backbone

__all__ = [
    "can_be_built_and_used",
    "empty_batches_are_empty",
    "is_causal",
    "packed_documents_are_apart",
    "shapes_fit_any_batch",
    "vectors_are_read",
    "wrong_arguments_are_named",
]

_ATTENDS = "attention without a causal mask, a shift by one, or a mean over all positions"


@contract()
def can_be_built_and_used(trial: BackboneTrial) -> None:
    """A backbone is built from its size, and has one state of that size for each vector."""
    backbone = trial.build()
    seen = f"hidden_size = {backbone.hidden_size}"
    cause = "super().__init__ is not given the size"
    expect(backbone.hidden_size == HIDDEN, seen=seen, expected=HIDDEN, cause=cause)
    use_backbone(trial, backbone)


@contract(searches=True)
def shapes_fit_any_batch(trial: BackboneTrial) -> None:
    """For any number of rows and positions there is one state for each vector."""
    backbone = trial.build()

    def check(example: tuple[int, int]) -> None:
        states = trial.states(backbone, trial.vectors(*example))
        cause = "an axis of length one is squeezed, or a length is built in"
        expect_shape(states, (*example, HIDDEN), what="what it returns", cause=cause)

    trial.search(lambda st: st.tuples(st.integers(1, 3), st.integers(1, 9)), check)


@contract()
def empty_batches_are_empty(trial: BackboneTrial) -> None:
    """Without a row there are no states, but their axes."""
    backbone = trial.build()
    for positions in (1, 3):
        states = trial.states(backbone, trial.vectors(0, positions))
        cause = "a reshape that infers an axis with -1, or a maximum over no rows"
        expect_shape(states, (0, positions, HIDDEN), what="what it returns", cause=cause)


@contract()
def is_causal(trial: BackboneTrial) -> None:
    """A state depends on no later vector and on no other row: by gradient, and by a change."""
    backbone = trial.build()
    x = trial.vectors(2, 5).requires_grad_()
    functional = trial.vectors(1, 5, number=1)[0]
    for place in range(5):
        state = trial.states(backbone, x)[0, place] @ functional[place]
        (gradient,) = torch.autograd.grad(state, x)
        later = int((gradient[0, place + 1 :] != 0).any(dim=-1).sum())
        seen = f"the state at position {place} has a gradient in {later} later vectors"
        expect(later == 0, seen=seen, expected="none", cause=_ATTENDS)
        seen = f"the state at position {place} has a gradient in another row"
        cause = "an operation along the batch axis"
        expect((gradient[1] == 0).all(), seen=seen, expected="none", cause=cause)
    other = x.detach().clone()
    other[:, 3:] += 1e3
    with torch.no_grad():
        got, want = (trial.states(backbone, v)[:, :3] for v in (other, x))
    than = "before vectors 3 and 4 were changed"
    expect_same(got, want, what="the first three states", than=than, cause=_ATTENDS)


@contract()
def vectors_are_read(trial: BackboneTrial) -> None:
    """A state depends on its own vector and on the one before."""
    backbone = trial.build()
    x = trial.vectors(1, 5).requires_grad_()
    functional = trial.vectors(1, 5, number=1)[0]
    for place in range(1, 5):
        state = trial.states(backbone, x)[0, place] @ functional[place]
        (gradient,) = torch.autograd.grad(state, x)
        for name, at in (("its own vector", place), ("the vector before", place - 1)):
            expect(
                (gradient[0, at] != 0).any(),
                seen=f"the state at position {place} has no gradient in {name}",
                expected="one",
                cause="states are shifted by one, each vector is read alone, or a layer that "
                "mixes positions starts at zero",
            )


@contract(searches=True)
def packed_documents_are_apart(trial: BackboneTrial) -> None:
    """Documents packed in a row have the states that they have in rows of their own."""
    backbone = trial.build()

    def check(lengths: list[int]) -> None:
        x = trial.vectors(1, sum(lengths))
        with torch.no_grad():
            packed = trial.states(backbone, x, AttentionMask.packed([lengths]))[0]
            parts = x[0].split(lengths)
            alone = torch.cat([backbone(part[None])[0] for part in parts])
        than = f"of documents of lengths {lengths} in rows of their own"
        cause = "the mask is not read, or positions (rotary, learnt) go on across documents"
        expect_same(packed, alone, what="states", than=than, cause=cause)

    trial.search(lambda st: st.lists(st.integers(1, 4), min_size=1, max_size=4), check)


@contract()
def wrong_arguments_are_named(trial: BackboneTrial) -> None:
    """Vectors of another size or without rows, and masks for other rows, are refused by name."""
    backbone = trial.build()
    narrow = torch.zeros(2, 3, HIDDEN - 1)
    rule = f"vectors have hidden_size = {HIDDEN} features"
    expect_refused(trial, backbone, narrow, naming="vectors", rule=rule)
    rule = "vectors have rows, positions and features"
    expect_refused(trial, backbone, trial.vectors(2, 3)[0], naming="vectors", rule=rule)
    mask: Tensor | AttentionMask = AttentionMask.packed([(3,)])
    rule = "the mask is made for as many rows as there are"
    expect_refused(trial, backbone, trial.vectors(2, 3), mask, naming="rows", rule=rule)
