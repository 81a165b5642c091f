"""How many floating-point operations one operation of PyTorch takes.

They are those of matrix products, 2 per multiply-add, as `torch.utils.flop_counter` counts them;
what is computed element by element is left out. Attention is counted in full, 4 operations per
query, key and feature, without taking off the half that a causal mask hides; its backward pass
twice that, whether a kernel computes the scores again or not.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry

__all__ = ["operations_of"]


def operations_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """By PyTorch's own formula, if it has one; else 0.

    Its `FlopCounterMode` applies them too, but follows modules as well, which fails for views of
    parameters where nothing has a gradient.

    Args:
        func: The operation, an `OpOverload`.
        args: Its arguments.
        kwargs: Its named arguments.
        result: What it returns.
    """
    packet = func.overloadpacket
    formula = _ATTENTION.get(packet) or flop_registry.get(packet)
    return 0 if formula is None else formula(*args, **kwargs, out_val=result)


def _attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """`2 queries keys (features of a key + features of a value)`, for each row and head."""
    rows, heads, queries, features = query.shape
    return 2 * rows * heads * queries * key.shape[2] * (features + value.shape[3])


def _attention_gradient(gradient: Tensor, *inputs: Any, **kwargs: Any) -> int:
    """Two products for each one of the forward pass."""
    return 2 * _attention(*inputs)


# The fused kernel of the CPU, which has no formula in the registry.
_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_gradient,
}
