"""The cost of a computation: FLOPs, and memory saved for the backward pass."""

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
    """The cost of a computation.

    Attributes:
        forward: FLOPs of the forward pass.
        backward: FLOPs of the backward pass; 0 without gradients.
        kept_bytes: Memory of the activations saved for the backward pass, each counted once,
            without the module's own weights.
    """

    forward: int
    backward: int
    kept_bytes: int

    @property
    def total(self) -> int:
        """FLOPs of both passes."""
        return self.forward + self.backward


def cost_of(run: DryRun, compute: Callable[[], Tensor], *, weights: Iterable[Tensor] = ()) -> Cost:
    """Run a computation and, if it can be differentiated, its backward pass.

    Args:
        run: The dry run, entered as a context.
        compute: A function that returns one tensor.
        weights: Tensors to exclude from the saved memory.
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
    """Memory of a backbone's cache per position and row.

    Args:
        backbone: The backbone; inside a `DryRun`, its outline.
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
