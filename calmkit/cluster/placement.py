"""A module on its devices: what is called and trained there, and how its weights are kept whole.

On one device, and with `ddp`, the caller's module itself is trained. With `fsdp` a sharded copy of
it is trained. The module then waits in the memory of the CPU, an ordinary one throughout: it is
measured and saved with the gathered weights, and has them at the end.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from calmkit.devices import compile_alike

from .sharding import copy_whole, distribute_like, local

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Placement"]

T = TypeVar("T")


class Caller(nn.Module):
    """Routes any call through `forward`, where Fabric sets precision and synchronises gradients.

    The call is one opaque function: Fabric would try to rebuild a batch to convert its numbers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[nn.Module], T]) -> T:
        """Apply the call to the module. Fabric registers its hooks on the tensors of a result."""
        return call(self.module)


class Placement:
    """A module, and its trained form on the devices of a fabric.

    Attributes:
        module: The caller's module.
        trained: The module that is trained: the same, or a sharded copy.
        is_sharded: Whether it is a copy.
        caller: `trained` as Fabric wraps it.
    """

    def __init__(self, module: nn.Module, fabric: "Fabric") -> None:
        """Move the module to its device, or shard a copy of it."""
        from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy

        self.module, self._fabric = module, fabric
        self.is_sharded = isinstance(fabric.strategy, ModelParallelStrategy)
        if self.is_sharded:
            # Each unit of the copy is moved to the device when it is sharded, the rest here.
            self.trained = copy.deepcopy(module.to("cpu"))
            compile_alike(self.trained, module)
            for parameter in self.trained.parameters():
                if not parameter.requires_grad:
                    parameter.data = parameter.to(fabric.device)
            for part in self.trained.modules():
                for name, buffer in part.named_buffers(recurse=False):
                    setattr(part, name, buffer.to(fabric.device))
        else:
            fabric.to_device(module)
            self.trained = module
        self.caller = fabric.setup_module(Caller(self.trained))
        if isinstance(fabric.strategy, DDPStrategy):
            self._fix_buckets()

    def _fix_buckets(self) -> None:
        """Let DDP divide the gradients into its final buckets before the first step.

        It divides them once more after its first backward pass. The first step of a resumed run
        would otherwise sum gradients in another order than that step of an uninterrupted one.
        """
        trained = [p for p in self.trained.parameters() if p.requires_grad]
        total = self.caller(lambda module: torch.stack([p.sum().float() for p in trained]).sum())
        self._fabric.backward(total)
        self.trained.zero_grad(set_to_none=True)

    @torch.no_grad()
    def gather(self) -> None:
        """Copy the trained weights into the module; every process must call it."""
        if self.is_sharded:
            copy_whole(self._pairs())

    @torch.no_grad()
    def scatter(self) -> None:
        """Copy the module's weights into the trained ones; every process must call it."""
        if self.is_sharded:
            for target, source in self._pairs():
                local(target).copy_(local(distribute_like(source, target)))

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Parameters and buffers of the trained module, each with the module's own."""
        yield from zip(self.trained.parameters(), self.module.parameters(), strict=True)
        yield from zip(self.trained.buffers(), self.module.buffers(), strict=True)

    @contextmanager
    def measured(self) -> Iterator[nn.Module]:
        """The module on its device, in evaluation mode, with the trained weights.

        Every process must enter; only the first needs to compute.
        """
        self.gather()
        if self.is_sharded and self._fabric.is_global_zero:
            self.module.to(self._fabric.device)
        self.module.eval()
        try:
            yield self.module
        finally:
            if self.is_sharded:
                self.module.to("cpu")
            else:
                self.module.train()

    def finish(self) -> None:
        """Give the module the trained weights; every process must call it."""
        self.gather()
        self.module.to(self._fabric.device)
