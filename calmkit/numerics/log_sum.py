"""log sum exp for many terms of which most are negligible.

In a mixture of thousands of components, most weighted densities are e^-100 of the largest or less.
Their exponentials and gradients are subnormal numbers, for which processors take many times as
long as for others, in the products of the backward pass too.
"""

import torch
from torch import Tensor

__all__ = ["log_sum_exp"]

_NEGLIGIBLE = -60.0  # 65,536 such terms change the sum by 6e-22 of it


def log_sum_exp(x: Tensor) -> Tensor:
    """`x.logsumexp(dim=-1)`, with no gradient for terms below e^-60 of the largest.

    Args:
        x: Logarithms of the terms in the last axis, of which there must be one. Where the largest
            is infinite, so is the sum, without a gradient.
    """
    largest = x.detach().amax(dim=-1, keepdim=True)
    shifted = (x - largest).clamp_min(_NEGLIGIBLE).exp().sum(dim=-1).log()
    largest = largest.squeeze(-1)
    return torch.where(largest.isinf(), largest, shifted + largest)
