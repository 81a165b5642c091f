"""The memory and the FLOPs of one training step, from a dry run of the step itself.

Forward pass, backward pass and optimiser run on tensors without memory, while the bytes of all
tensors alive are counted: each storage from the operation that creates it to its release. The
largest sum is the memory that the step needs. What a part recomputes, keeps in another number
format or computes in blocks is thereby included, without a formula for any of it.

Operations inside one kernel are invisible: its work space is not counted. Compiled parts need
less, as their elementwise results are fused.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.private_torch import map_tensors, storage_id

from .dry_run import DryRun

__all__ = ["MemoryRun", "StepMemory", "step_memory"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class StepMemory:
    """The cost of one training step on one device; memory in bytes.

    Attributes:
        flops: FLOPs of the forward and backward pass, without what is only recomputed.
        weights: Parameters and buffers, of frozen parts too.
        gradients: Gradients of the trained parameters.
        optimizer_state: State of the optimiser after its first step.
        activations: Tensors kept for the backward pass. At the largest sum some gradients may not
            exist yet; these count less here, so that the sum of all kinds is the largest sum.
        temporaries: What the largest sum holds beyond all of these: gradients of activations,
            blocks of logits, intermediate results of the optimiser.
    """

    flops: float
    weights: float
    gradients: float
    optimizer_state: float
    activations: float
    temporaries: float


class MemoryRun(DryRun):
    """A dry run that counts the bytes of the tensors it creates, while they are alive.

    Attributes:
        alive: Bytes of all tensors alive.
        most: Largest value of `alive` so far.
        recomputed: FLOPs of forward passes that are repeated in a backward pass.
    """

    def __init__(self) -> None:
        """Count nothing yet."""
        super().__init__()
        self.alive = self.most = self.recomputed = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._is_backward = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        before = self.operations
        result = super().__torch_dispatch__(func, types, args, kwargs)
        # A backward pass runs without gradients, except where it repeats a forward pass.
        if self._is_backward and torch.is_grad_enabled():
            self.recomputed += self.operations - before
        map_tensors(self._count, result)
        return result

    def backward(self, loss: Tensor) -> None:
        """The backward pass of a loss."""
        self._is_backward = True
        try:
            loss.backward()
        finally:
            self._is_backward = False

    def _count(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), storage_id(tensor)
        if key in self._known:
            return
        size = storage.nbytes()
        self.alive += size
        self.most = max(self.most, self.alive)
        self._known[key] = weakref.ref(storage, lambda _: self._release(key, size))

    def _release(self, key: int, size: int) -> None:
        del self._known[key]
        self.alive -= size


def step_memory(
    module: M,
    loss: Callable[[M], Tensor],
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
    *,
    mixed: bool = False,
    accumulates: bool = False,
) -> StepMemory:
    """Dry-run one micro-batch and a step of the optimiser, not the first of a run.

    Args:
        module: The module to train, on any device, including the meta device; it is not changed.
        loss: The loss of a micro-batch, in training mode.
        optimizer: Builds the optimiser over the trained parameters.
        mixed: Whether matrix products are in bfloat16, as with precision `bf16-mixed`.
        accumulates: Whether gradients of an earlier micro-batch are alive.
    """
    run = MemoryRun()
    outline = run.outline(module).train()
    with run:
        weights = run.alive
        trained = [p for p in outline.parameters() if p.requires_grad]
        for p in trained:
            p.grad = torch.zeros_like(p)
        gradients = run.alive - weights
        stepper = optimizer(trained)
        stepper.step()
        state = run.alive - weights - gradients
        if not accumulates:
            stepper.zero_grad(set_to_none=True)
        before, run.most, run.operations = run.alive, run.alive, 0
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those about speed do not concern a dry run
            total = loss(outline)
        activations = run.alive - before
        run.backward(total)
        flops = run.operations - run.recomputed
        stepper.step()
    beyond = max(0, run.most - weights - gradients - state)
    kept = min(activations, beyond)
    return StepMemory(flops, weights, gradients, state, kept, beyond - kept)
