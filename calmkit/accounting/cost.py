"""What one computation costs: floating-point operations, and memory kept for its gradient."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from calmkit.backbones import Backbone
from calmkit.private_torch import storage_id

from .dry_run import DryRun

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


def cost_of(run: DryRun, compute: Callable[[], Tensor], *, weights: Iterable[Tensor] = ()) -> Cost:
    """Run a computation and, if it can be differentiated, its backward pass.

    Args:
        run: The context, entered.
        compute: Gives one tensor.
        weights: Tensors whose memory is not the computation's.
    """
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[storage_id(tensor)] = tensor
        return tensor

    before = run.operations
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    between = run.operations
    if result.requires_grad:
        result.sum().backward()
    for weight in weights:
        kept.pop(storage_id(weight), None)
    kept_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return Cost(between - before, run.operations - between, kept_bytes)


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
                storages[storage_id(tensor)] = tensor.untyped_storage().nbytes()
    return sum(storages.values())
