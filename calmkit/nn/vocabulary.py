r"""Cross entropy over a large vocabulary, in bounded memory.

    nats = logsumexp(W h) - (W h)_y

for features h, the weights W of V tokens and a target token y. At V = 128,000 the logits of 4,096
targets take 2 GB, and their gradient as much again. Here they are computed for some targets at a
time and forgotten; the backward pass computes them anew (activation checkpointing), which costs
one product with W more. Values are those of the plain form; gradients agree with it to rounding.

`torch.nn.functional.linear_cross_entropy` of PyTorch 2.13 needs no second product, but it cannot
be compiled or differentiated twice.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from calmkit.typing import typed

__all__ = ["vocabulary_nats"]

_LOGITS_AT_ONCE = 2**24  # 64 MB in float32


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
        target: Token ids.
    """
    rows, tokens = features.flatten(0, -2), target.flatten().long()
    at_once = max(1, _LOGITS_AT_ONCE // len(weight))
    if len(rows) <= at_once:
        nats = _nats(rows, weight, tokens)
    else:
        parts = zip(rows.split(at_once), tokens.split(at_once), strict=True)
        # Nothing here is random.
        keep = {"use_reentrant": False, "preserve_rng_state": False}
        nats = torch.cat([checkpoint(_nats, some, weight, of, **keep) for some, of in parts])
    return nats.view(target.shape)


def _nats(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    logits = linear(features, weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, target, reduction="none")
