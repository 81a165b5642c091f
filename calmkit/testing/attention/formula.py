"""That a backend computes softmax(scale * q k^T, over the visible keys) v, and its gradients."""

from typing import Any

import torch
from torch import Tensor

from calmkit.testing.attention.trial import (
    MASKS,
    AttentionTrial,
    Case,
    cannot_run,
    plain_attention,
)
from calmkit.testing.contract import contract
from calmkit.testing.expecting import (
    expect_dtype,
    expect_finite,
    expect_same,
    expect_shape,
)
from calmkit.testing.modules import expect_small_error

__all__ = [
    "can_be_built_and_used",
    "full_and_causal_masks_are_the_formula",
    "gradients_are_those_of_the_formula",
    "low_precision_is_close",
    "neighbouring_heads_share_keys",
    "packed_documents_are_the_formula",
    "padded_caches_are_the_formula",
    "scale_is_used",
    "windows_are_the_formula",
]

_LOW = (torch.float32, torch.bfloat16, torch.float16)
_ALIGNED = (
    "queries are not the last positions of the keys (a causal mask that is aligned top-left), or "
    "the mask is read as what to hide instead of what to see"
)


@contract(applies=cannot_run())
def can_be_built_and_used(trial: AttentionTrial) -> None:
    """A backend takes queries, keys, values and a mask, and returns what queries have."""
    case = trial.case("causal")
    cause = "heads and positions are not exchanged back"
    expect_shape(trial.attend(case), case[0].shape, what="what it returns", cause=cause)


def _search(trial: AttentionTrial, masks: list[str], cause: str) -> None:
    """Compare with the formula at many shapes, axes of length one among them."""

    def examples(st: Any) -> Any:
        small = st.integers(1, 3)
        case = st.tuples(st.sampled_from(masks), small, st.integers(1, 5), st.integers(0, 3))
        return st.tuples(case, st.tuples(small, st.sampled_from([1, 4, 8]), st.integers(0, 99)))

    def check(example: tuple[tuple[str, int, int, int], tuple[int, int, int]]) -> None:
        (mask, rows, q_len, more), (heads, size, number) = example
        made = trial.case(
            mask, rows, q_len, more, heads=(heads, heads), head_dim=size, number=number
        )
        if trial.refused(made) is None:
            _expect_formula(trial, made, f"attention under a {mask} mask", cause)

    trial.search(examples, check)


def _expect_formula(
    trial: AttentionTrial, case: Case, what: str, cause: str, scale: float | None = None
) -> None:
    got, want = trial.attend(case, scale=scale), plain_attention(case, scale)
    much = trial.tolerance
    expect_same(got.double(), want, what=what, than="by the formula", cause=cause, rtol=much,
                atol=much)  # fmt: skip


@contract(applies=cannot_run("full", "causal"), searches=True)
def full_and_causal_masks_are_the_formula(trial: AttentionTrial) -> None:
    """Over all keys, and over the earlier ones, it is the formula for any lengths."""
    _search(trial, ["full", "causal"], _ALIGNED)


@contract(applies=cannot_run("window"), searches=True)
def windows_are_the_formula(trial: AttentionTrial) -> None:
    """A query sees itself and at most window - 1 keys before it."""
    _search(trial, ["window"], f"a window that is off by one, or is not read; {_ALIGNED}")


@contract(applies=cannot_run("packed", "packed, window"), searches=True)
def packed_documents_are_the_formula(trial: AttentionTrial) -> None:
    """A query sees earlier keys of its own document only, row by row."""
    cause = "documents of the first row are taken for all rows, or lengths for their ends"
    _search(trial, ["packed", "packed, window"], cause)


@contract(applies=cannot_run("cached", "cached, window"), searches=True)
def padded_caches_are_the_formula(trial: AttentionTrial) -> None:
    """Row b sees its first `key_lengths[b]` keys, of which its queries are the last."""
    cause = "key_lengths are not read, or queries are taken for the last keys of the padding"
    _search(trial, ["cached", "cached, window"], cause)


@contract(applies=cannot_run("causal"))
def scale_is_used(trial: AttentionTrial) -> None:
    """Scores are multiplied by `scale`, and by 1 / sqrt(head_dim) if it is None."""
    for scale in (None, 0.3, 2.0):
        for head_dim in (4, 8):
            case = trial.case("causal", head_dim=head_dim)
            cause = "scale is not handed on, or features are padded before the scale is chosen"
            what = f"attention with scale={scale} and head_dim={head_dim}"
            _expect_formula(trial, case, what, cause, scale)


@contract(applies=cannot_run("causal", heads=(4, 2)))
def neighbouring_heads_share_keys(trial: AttentionTrial) -> None:
    """With fewer heads of keys, groups of neighbouring query heads share one of them."""
    for heads in ((4, 2), (4, 1), (6, 3)):
        for mask in ("causal", "packed"):
            case = trial.case(mask, heads=heads)
            if trial.refused(case) is None:
                what = f"attention of {heads[0]} heads on {heads[1]} of keys"
                cause = "keys are repeated as a whole (repeat for repeat_interleave)"
                _expect_formula(trial, case, what, cause)


def _gradients(case: Case, out: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((out.double() * weights).sum(), case[:3])


def _leaves(case: Case) -> Case:
    q, k, v = (x.detach().clone().requires_grad_() for x in case[:3])
    return q, k, v, case[3]


def _without_backward(trial: AttentionTrial) -> str | None:
    return cannot_run()(trial) or trial.refused(_leaves(trial.case("causal")))


@contract(applies=_without_backward)
def gradients_are_those_of_the_formula(trial: AttentionTrial) -> None:
    """Queries, keys and values get the formula's gradients, under every mask it can train with."""
    much = trial.tolerance
    for mask in MASKS:
        for heads in ((2, 2), (4, 2)):
            case = _leaves(trial.case(mask, more=1, heads=heads))
            if trial.refused(case) is not None:
                continue
            weights = torch.randn(case[0].shape, generator=trial.generator(5)).to(case[0].device)
            got = _gradients(case, trial.attend(case), weights)
            want = _gradients(case, plain_attention(case), weights)
            for name, one, other in zip("qkv", got, want, strict=True):
                what = (
                    f"the gradient of {name} under a {mask} mask, {heads[0]} heads on {heads[1]}"
                )
                cause = "a detached tensor, or a backward that forgets the scale or shared heads"
                expect_same(one.double(), other.double(), what=what, than="by the formula",
                            cause=cause, rtol=much, atol=much)  # fmt: skip


def _refuses_low_precision(trial: AttentionTrial) -> str | None:
    cases = [trial.case("causal", dtype=dtype) for dtype in _LOW]
    reasons = [trial.refused(case) for case in cases]
    return cannot_run()(trial) or (None if None in reasons else reasons[0])


@contract(applies=_refuses_low_precision)
def low_precision_is_close(trial: AttentionTrial) -> None:
    """In float32 and in 16 bits the dtype is kept, and the error is below 4 epsilons."""
    for dtype in _LOW:
        for mask in MASKS:
            case = trial.case(mask, dtype=dtype)
            if trial.refused(case) is not None:
                continue
            got, want = trial.attend(case), plain_attention(case)
            cause = "a tensor is made without dtype=, or the softmax runs in the low precision"
            expect_dtype(got, dtype, what="what it returns", cause=cause)
            expect_finite(got, what=f"attention in {dtype}", cause="scores that overflow")
            most = 4 * torch.finfo(dtype).eps
            what = f"results under a {mask} mask in {dtype}"
            expect_small_error(got, want, most, what=what, cause=cause)
