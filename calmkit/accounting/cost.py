"""What one computation costs: floating-point operations, and memory kept for its gradient.

Operations are those of matrix products, 2 per multiply-add, as `torch.utils.flop_counter` counts
them; what is computed element by element is left out. Attention is counted in full, 4 operations
per query, key and feature, without taking off the half that a causal mask hides; its backward
pass twice that, whether a kernel computes the scores again or not.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from calmkit.backbones import Backbone

__all__ = ["Cost", "cache_bytes_per_position", "cost_of"]


@dataclass(frozen=True)
class Cost:
    """What one computation costs.

    Attributes:
        forward: Operations of the computation.
        backward: Operations of its gradient; 0 if it has none.
        kept_bytes: Memory that is kept from the forward for the backward pass: activations, each
            counted once, without the module's own weights.
    """

    forward: int
    backward: int
    kept_bytes: int

    @property
    def total(self) -> int:
        """Operations of both passes."""
        return self.forward + self.backward


def cost_of(compute: Callable[[], Tensor], *, weights: Iterable[Tensor] = ()) -> Cost:
    """Run a computation and, if it can be differentiated, its backward pass.

    Args:
        compute: Gives one tensor; in a `DryRun` nothing is really computed.
        weights: Tensors whose memory is not the computation's.
    """
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with _Counter() as counter:
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            result = compute()
        forward = counter.operations
        if result.requires_grad:
            result.sum().backward()
    for weight in weights:
        kept.pop(weight.untyped_storage()._cdata, None)
    kept_bytes = sum(storage.nbytes() for storage in kept.values())
    return Cost(forward, counter.operations - forward, kept_bytes)


def cache_bytes_per_position(backbone: Backbone) -> int:
    """Memory that a backbone's cache takes for one more position of one row.

    Args:
        backbone: In a `DryRun`, its outline.
    """
    longer, shorter = (_bytes_of(backbone.new_cache(1, capacity)) for capacity in (2, 1))
    return longer - shorter


def _bytes_of(cache: object) -> int:
    storages = {}
    for value in vars(cache).values():
        for tensor in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


class _Counter(TorchDispatchMode):
    """Adds up operations by PyTorch's own formulas.

    Its `FlopCounterMode` does so too, but follows modules as well, which fails for views of
    parameters where nothing has a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _ATTENTION.get(func._overloadpacket) or flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.operations += formula(*args, **kwargs, out_val=result)
        return result


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
