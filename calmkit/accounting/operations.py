"""The number of FLOPs of one PyTorch operation.

Only matrix products count, with 2 FLOPs per multiply-add, as in `torch.utils.flop_counter`;
elementwise operations are ignored. Attention counts in full, with 4 FLOPs per query, key and
feature and without subtracting the half hidden by a causal mask. Its backward pass counts twice as
much, whether or not a kernel recomputes the scores.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

__all__ = ["operations_of"]


def operations_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """FLOPs by PyTorch's own formula; 0 if there is none.

    PyTorch's `FlopCounterMode` uses the same formulas but also tracks modules, which fails for
    views of parameters if nothing requires a gradient.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments.
        kwargs: Its named arguments.
        result: Its return value.
    """
    packet = func.overloadpacket
    formula = _ATTENTION.get(packet) or flop_registry.get(packet)
    return 0 if formula is None else formula(*args, **kwargs, out_val=result)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """`2 queries keys (features of a key + features of a value)`, for each row and head."""
    rows, heads, queries, features = query.shape
    return 2 * rows * heads * queries * key.shape[2] * (features + value.shape[3])


def _attention_gradient(gradient: Tensor, *inputs: Any, **kwargs: Any) -> int:
    """Two products for each product of the forward pass."""
    return 2 * _attention(*inputs)


# The fused CPU kernel has no formula in the registry.
_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient,
}
