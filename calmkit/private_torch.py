"""What PyTorch tells only through private functions; each has a test, so that a change is seen.

`torch.func` wraps tensors: under `vmap` one stands for many, whose numbers cannot be read. Such
wrappers are nested as the transforms are, `vmap(grad(f))` for instance.
"""

import torch
from torch import Tensor

__all__ = ["distance_gradient", "has_values", "in_transform"]


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be read: not under `vmap`, at whatever depth."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return True


def in_transform() -> bool:
    """Whether a transform of `torch.func` is at work; under `torch.compile` always False."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.peek_interpreter_stack() is not None


def distance_gradient(grad: Tensor, a: Tensor, b: Tensor, distance: Tensor) -> Tensor:
    """Sum over j of grad_ij (a_i - b_j) / distance_ij, the gradient of `torch.cdist` by a.

    Zero where the distance is. No difference outlives its turn, hence it cannot be
    differentiated itself.

    Args:
        grad: Gradient by the distances, (*batch, rows, columns).
        a: Points, (*batch, rows, latent).
        b: Points, (*batch, columns, latent).
        distance: `torch.cdist(a, b)`.
    """
    return torch.ops.aten._cdist_backward(grad.contiguous(), a, b, 2.0, distance.contiguous())
