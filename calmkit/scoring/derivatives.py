"""Which derivative is asked for: a fast first one by hand, or any, from plain operations.

A hand-written gradient (`torch.autograd.Function`) is fast and small, but no formula that PyTorch
could differentiate again. So it is taken only where no other derivative can follow: in a plain
backward pass. Everything else is left to PyTorch and to functions of plain operations, right
whatever is asked of them: forward mode and the transforms of `torch.func` from the start
(`needs_plain_operations`); a backward pass that keeps a graph (`create_graph=True`) from there on,
where `torch.is_grad_enabled()` is true.
"""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.linalg import vector_norm

from calmkit.private_torch import in_transform

__all__ = ["needs_plain_operations", "smooth_norm"]


def needs_plain_operations(*inputs: Tensor) -> bool:
    """Whether more than a plain backward pass may follow; always so under `torch.compile`."""
    return (
        torch.compiler.is_compiling()
        or in_transform()
        or any(unpack_dual(x).tangent is not None for x in inputs)
    )


def smooth_norm(x: Tensor, dim: int) -> Tensor:
    """The Euclidean norm along an axis; at zero its derivatives of all orders are taken as zero.

    (Those of PyTorch's from the second on are NaN there.)
    """
    if not (x.requires_grad or needs_plain_operations(x)):
        return vector_norm(x, dim=dim)
    zero = (x == 0).all(dim=dim, keepdim=True)
    # The branch that is not taken must have finite derivatives: NaN times zero is NaN.
    norm = vector_norm(torch.where(zero, 1.0, x), dim=dim)
    return torch.where(zero.squeeze(dim), 0.0, norm)
