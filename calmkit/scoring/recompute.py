"""Scores whose intermediate tensors are recomputed in the backward pass instead of kept."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from calmkit.private_torch import in_transform

__all__ = ["recomputed"]


def recomputed(score: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """`score(*args)`, which must be deterministic.

    It is a plain call under `torch.compile`, since the compiler itself decides which tensors to
    keep, and under the transforms of `torch.func`, which do not support checkpointing.
    """
    if torch.compiler.is_compiling() or in_transform():
        return score(*args)
    return checkpoint(score, *args, use_reentrant=False, preserve_rng_state=False)
