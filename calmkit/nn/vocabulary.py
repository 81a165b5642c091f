r"""Cross entropy over a large vocabulary, in bounded memory.

    nats = logsumexp(W h) - (W h)_y

for features h, the weights W of V tokens and a target token y. At V = 128,000 the logits of 4,096
targets take 2 GB, and their gradient as much again. Here they are computed for a block of targets
and tokens at a time and forgotten. Only the logsumexp of each target is kept; the backward pass
computes the logits anew, p = exp(W h - logsumexp), and adds a block's share to the gradients

    dh = u W^T (p - e_y),    dW = u (p - e_y) h^T

for the gradient u of a target's nats. This takes a product with W more than the plain form, which
is nevertheless slower: it moves all logits through memory several times. Values and gradients
agree with it to rounding.

`torch.nn.functional.linear_cross_entropy` of PyTorch 2.13 also computes the logits twice to return
the nats of each target. It takes a few targets and all tokens at a time, which is slower if the
vocabulary is large, and cannot be compiled or differentiated twice.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, one_hot

from calmkit.finite import is_readable
from calmkit.typing import typed

__all__ = ["IGNORED", "targets_of_full_blocks", "vocabulary_nats"]

IGNORED = -100
"""A target that is not counted, as in `torch.nn.functional.cross_entropy`."""

# 8 MB in float32, which caches hold: larger blocks are slower. Fewer logits take the plain form.
_LOGITS_AT_ONCE = 2**21
_TARGETS_AT_ONCE = 4096


@typed
def vocabulary_nats(
    features: Float[Tensor, "*batch width"],
    weight: Float[Tensor, "vocab width"],
    target: Int[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """Cross entropy of each target, in nats, in float32 at least.

    Args:
        features: Before the output layer.
        weight: Of the output layer, which has no bias.
        target: Token ids. A target of -100 has 0 nats and no gradient.

    Raises:
        ValueError: If a target is not a token of the vocabulary.
    """
    rows, tokens = features.flatten(0, -2), target.flatten().long()
    _check_tokens(tokens, len(weight))
    if len(rows) * len(weight) <= _LOGITS_AT_ONCE:
        nats = _nats(rows, weight, tokens)
    else:
        # Autocast does not reach the products of the backward pass.
        device = rows.device.type
        dtype = rows.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        nats, _ = _NatsInBlocks.apply(rows, weight, tokens, dtype)
    return nats.view(target.shape)


def targets_of_full_blocks(vocab: int) -> int:
    """The least number of targets that fill a block; more of them take no larger one.

    Args:
        vocab: Number of tokens.
    """
    return max(_LOGITS_AT_ONCE // vocab + 1, _TARGETS_AT_ONCE)


def _nats(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """The plain form, which holds all logits."""
    logits = linear(features, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, target, reduction="none", ignore_index=IGNORED)


class _NatsInBlocks(torch.autograd.Function):
    """The nats and the logsumexp of each target; products are computed in a given dtype."""

    @staticmethod
    def forward(
        features: Tensor, weight: Tensor, target: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(dtype, torch.float32)
        normaliser = features.new_full(target.shape, -torch.inf, dtype=wide)
        own = torch.zeros_like(normaliser)
        for rows, columns in _blocks(len(target), len(weight)):
            logits = linear(features[rows].to(dtype), weight[columns].to(dtype)).to(wide)
            place, inside = _place_in(columns, target[rows])
            own[rows] += torch.where(inside, logits.gather(1, place)[:, 0], 0.0)
            normaliser[rows] = torch.logaddexp(normaliser[rows], logits.logsumexp(dim=-1))
        return torch.where(target == IGNORED, 0.0, normaliser - own), normaliser

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        features, weight, target, ctx.dtype = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(features, weight, target, output[1])

    @staticmethod
    def backward(  # pyrefly: ignore
        ctx: Any, upstream: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, weight, target, normaliser = ctx.saved_tensors
        upstream = torch.where(target == IGNORED, 0.0, upstream)
        if torch.is_grad_enabled():  # second derivatives are wanted
            return *_plain_gradients(features, weight, target, upstream), None, None
        # A frozen decoder needs no gradient, which would be as large as its weights.
        by_features, by_weight = ctx.needs_input_grad[:2]
        in_features = torch.zeros_like(features) if by_features else None
        in_weight = torch.zeros_like(weight) if by_weight else None
        for rows, columns in _blocks(len(target), len(weight)):
            narrow, tokens = features[rows].to(ctx.dtype), weight[columns].to(ctx.dtype)
            with torch.enable_grad():  # marks a repeated forward pass, as checkpointing does
                slope = linear(narrow, tokens)
            slope = slope.to(normaliser.dtype).sub_(normaliser[rows, None]).exp_()
            place, inside = _place_in(columns, target[rows])
            slope.scatter_add_(1, place, -inside[:, None].to(slope.dtype))
            slope = slope.mul_(upstream[rows, None]).to(ctx.dtype)
            if in_features is not None:
                in_features[rows] += slope @ tokens
            if in_weight is not None:
                in_weight[columns] += slope.T @ narrow
        return in_features, in_weight, None, None


def _blocks(targets: int, vocab: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of many targets and some tokens: few targets and all tokens take twice as long."""
    height = min(targets, _TARGETS_AT_ONCE)
    width = max(1, _LOGITS_AT_ONCE // height)
    for top in range(0, targets, height):
        for left in range(0, vocab, width):
            yield slice(top, min(top + height, targets)), slice(left, min(left + width, vocab))


def _place_in(columns: slice, target: Tensor) -> tuple[Tensor, Tensor]:
    """Column of each target in a block, (targets, 1), and whether it lies inside."""
    inside = (target >= columns.start) & (target < columns.stop)
    place = (target - columns.start).clamp(0, columns.stop - columns.start - 1)
    return place[:, None], inside


def _plain_gradients(
    features: Tensor, weight: Tensor, target: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients that can be differentiated again; they hold all logits."""
    own = one_hot(target.clamp_min(0), len(weight))
    slope = (linear(features, weight).softmax(dim=-1) - own) * upstream[:, None]
    return (slope @ weight).to(features.dtype), (slope.T @ features).to(weight.dtype)


def _check_tokens(target: Tensor, vocab: int) -> None:
    if not is_readable(target):
        return
    wrong = ((target < 0) & (target != IGNORED)) | (target >= vocab)
    if wrong.any():
        raise ValueError(
            f"target must hold token ids in [0, {vocab}), or {IGNORED} for one that is not "
            f"counted; got {int(target[wrong][0])}."
        )
