"""What a query's result depends on, and what it does not."""

import torch
from torch import Tensor

from calmkit.attention import AttentionMask
from calmkit.testing.attention.trial import (
    MASKS,
    AttentionTrial,
    Case,
    cannot_run,
    plain_attention,
)
from calmkit.testing.contract import contract
from calmkit.testing.expecting import (
    expect_finite,
    expect_same,
    expect_shape,
    expect_unchanged,
)
from calmkit.testing.tensors import laid_out, layouts

__all__ = [
    "a_query_that_sees_nothing_gives_zeros",
    "arguments_are_left_alone",
    "empty_batches_are_empty",
    "hidden_keys_do_not_matter",
    "large_scores_stay_finite",
    "layout_in_memory_does_not_matter",
    "rows_and_heads_are_apart",
]


@contract(applies=cannot_run())
def hidden_keys_do_not_matter(trial: AttentionTrial) -> None:
    """What a query may not see moves no bit of its result, however large it is."""
    for mask in MASKS:
        case = trial.case(mask, rows=1, q_len=5)
        if trial.refused(case) is not None:
            continue
        q, k, v, made = case
        seen = made.dense(5, k.shape[1], q.device)[0]
        want = trial.attend(case)
        for place in range(k.shape[1]):
            other_k, other_v = k.clone(), v.clone()
            other_k[:, place] += 100.0
            other_v[:, place] -= 1e4
            got = trial.attend((q, other_k, other_v, made))
            blind = ~seen[:, place]
            cause = "a large negative score stands for minus infinity, or the mask is off by one"
            expect_same(
                got[0, blind],
                want[0, blind],
                what=f"results under a {mask} mask of queries that do not see key {place}",
                than="before that key was changed",
                cause=cause,
                rtol=0.0,
                atol=0.0,
            )


def _blind(trial: AttentionTrial) -> Case:
    """A padded cache whose first row has more queries than keys: its first two see none."""
    q, k, v, _ = trial.case("causal", q_len=3, more=2)
    return q, k, v, AttentionMask.cached(torch.tensor([1, 5], device=q.device))


def _refuses_caches(trial: AttentionTrial) -> str | None:
    return cannot_run("cached")(trial) or trial.refused(_blind(trial))


@contract(applies=_refuses_caches)
def a_query_that_sees_nothing_gives_zeros(trial: AttentionTrial) -> None:
    """A query without a visible key has a result of zeros, and its gradients are finite."""
    q, k, v, mask = _blind(trial)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    with torch.set_grad_enabled(trial.refused((q, k, v, mask)) is None):
        got = trial.attend((q, k, v, mask))
    cause = "a softmax over minus infinities, which is NaN, or over one large number, a mean"
    than, much = "zeros", trial.tolerance
    expect_same(got[0, :2], torch.zeros_like(got[0, :2]), what="the result of such a query",
                than=than, cause=cause, atol=0.0)  # fmt: skip
    want = plain_attention((q, k, v, mask))
    expect_same(got.double(), want, what="the result of the others", than="by the formula",
                cause=cause, rtol=much, atol=much)  # fmt: skip
    if got.requires_grad:
        for name, gradient in zip("qkv", torch.autograd.grad(got.sum(), leaves), strict=True):
            expect_finite(gradient, what=f"the gradient of {name}", cause=cause)


@contract(applies=cannot_run())
def rows_and_heads_are_apart(trial: AttentionTrial) -> None:
    """A row alone and a head alone have the result that they have among others."""
    q, k, v, mask = case = trial.case("causal", rows=3, heads=(3, 3), more=1)
    together, much = trial.attend(case), trial.tolerance
    for place in range(3):
        one = slice(place, place + 1)
        row = (q[one], k[one], v[one], mask)
        head = (q[:, :, one], k[:, :, one], v[:, :, one], mask)
        for name, cut, alone in (
            ("row", row, together[one]),
            ("head", head, together[:, :, one]),
        ):
            got = trial.attend(cut)
            than = f"that of {name} {place} among the others"
            cause = "heads, positions and rows are exchanged by a reshape in the wrong order"
            expect_same(got, alone, what="the result alone", than=than, cause=cause, rtol=much,
                        atol=much)  # fmt: skip


@contract(applies=cannot_run())
def large_scores_stay_finite(trial: AttentionTrial) -> None:
    """Scores of some thousands, of which exp overflows, give a finite result."""
    q, k, v, mask = trial.case("causal")
    case = (100 * q, 100 * k, v, mask)
    got, much = trial.attend(case), trial.tolerance
    cause = "the softmax does not subtract the largest score before it takes the exponential"
    expect_finite(got, what="the result", cause=cause)
    visible = mask.dense(q.shape[1], k.shape[1], q.device)
    scores = torch.einsum("bihd,bjhd->bhij", case[0].double(), case[1].double())
    weights = (scores / q.shape[-1] ** 0.5).masked_fill(~visible[:, None], -torch.inf).softmax(-1)
    want = torch.einsum("bhij,bjhd->bihd", weights, v.double())
    much = max(much, 1e-6)
    expect_same(got.double(), want, what="the result", than="by the formula", cause=cause,
                rtol=much, atol=much)  # fmt: skip


@contract(applies=cannot_run("full"))
def empty_batches_are_empty(trial: AttentionTrial) -> None:
    """Without a row, or without a query, there is no result, but its axes."""
    for rows, q_len in ((0, 3), (2, 0)):
        case = trial.case("full", rows, q_len, 2)
        if trial.refused(case) is None:
            cause = "a reshape that infers an axis with -1, or a loop that has nothing to stack"
            expect_shape(trial.attend(case), case[0].shape, what="what it returns", cause=cause)


@contract(applies=cannot_run(), searches=True)
def layout_in_memory_does_not_matter(trial: AttentionTrial) -> None:
    """Expanded and non-contiguous tensors give the same as their contiguous copies."""

    def check(example: tuple[str, str]) -> None:
        layout, mask = example
        q, k, v, made = trial.case(mask, rows=2)
        q, k, v = (laid_out(x, layout) for x in (q, k, v))
        if trial.refused((q, k, v, made)) is not None:
            return
        got = trial.attend((q, k, v, made))
        q, k, v = (x.contiguous() for x in (q, k, v))
        want = trial.attend((q, k, v, made))
        than = f"for contiguous copies (layout: {layout}, mask: {mask})"
        cause = "`view` where `reshape` is needed, or strides that a kernel does not read"
        much = trial.tolerance
        expect_same(got, want, what="the result", than=than, cause=cause, rtol=much, atol=much)

    trial.search(lambda st: st.tuples(layouts(st), st.sampled_from(list(MASKS))), check)


@contract(applies=cannot_run())
def arguments_are_left_alone(trial: AttentionTrial) -> None:
    """Queries, keys and values are read, never written."""
    for mask in MASKS:
        case = trial.case(mask)
        if trial.refused(case) is None:
            before: list[Tensor] = [x.clone() for x in case[:3]]
            with torch.no_grad():
                trial.attend(case)
            expect_unchanged(before, case[:3], names="q k v")
