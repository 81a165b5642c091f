"""Scores whose intermediate tensors are computed anew for the backward pass instead of kept."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(score: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """`score(*args)`, which must be deterministic; under `torch.compile` a plain call.

    The compiler plans itself what to keep.
    """
    if torch.compiler.is_compiling():
        return score(*args)
    return checkpoint(score, *args, use_reentrant=False, preserve_rng_state=False)
