"""The choice between a fast hand-written gradient and PyTorch's own derivatives, or recomputing.

A hand-written gradient (`torch.autograd.Function`) is fast and needs little memory, but PyTorch
cannot differentiate it again. It is used only in a plain backward pass, where no other derivative
can follow. Everything else uses plain operations, which PyTorch differentiates to any order:

- Forward mode and the transforms of `torch.func` use them from the start
  (`needs_plain_operations`).
- A backward pass that keeps a graph (`create_graph=True`) uses them in the backward pass, where
  `torch.is_grad_enabled()` is true.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.linalg import vector_norm
from torch.utils.checkpoint import checkpoint

from calmkit.private_torch import in_transform

__all__ = ["needs_plain_operations", "recomputed", "smooth_norm"]


def needs_plain_operations(*inputs: Tensor) -> bool:
    """Whether more than a plain backward pass may follow; always true under `torch.compile`."""
    return (
        torch.compiler.is_compiling()
        or in_transform()
        or any(unpack_dual(x).tangent is not None for x in inputs)
    )


def recomputed(score: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """`score(*args)`, deterministic, its intermediate tensors recomputed in the backward pass.

    It is a plain call under `torch.compile`, since the compiler itself decides which tensors to
    keep, and under the transforms of `torch.func`, which do not support checkpointing.
    """
    if torch.compiler.is_compiling() or in_transform():
        return score(*args)
    return checkpoint(score, *args, use_reentrant=False, preserve_rng_state=False)


def smooth_norm(x: Tensor, dim: int) -> Tensor:
    """The Euclidean norm along an axis; at zero its derivatives of all orders are taken as zero.

    (PyTorch's own are NaN there from the second order on.)
    """
    if not (x.requires_grad or needs_plain_operations(x)):
        return vector_norm(x, dim=dim)
    zero = (x == 0).all(dim=dim, keepdim=True)
    # The branch that is not taken must have finite derivatives: NaN times zero is NaN.
    norm = vector_norm(torch.where(zero, 1.0, x), dim=dim)
    return torch.where(zero.squeeze(dim), 0.0, norm)
