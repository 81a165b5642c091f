r"""Fully sharded training: each of R processes holds an R-th of all that grows with the model.

A module is divided into units: each layer of the backbone, the head, the input encoder, and the
rest. Before a unit is used, its weights are gathered from all processes; afterwards each keeps its
shard. In the backward pass, gradients are averaged and divided likewise.

    memory of a process = (weights + gradients + optimiser state) / R
                          + the weights of the units in use + activations

Frozen parameters, such as those of a CALM's autoencoder, stay whole in each process: they have
neither gradient nor optimiser state, and gathering them in every pass would cost more than they
save. Any module can be trained; one without these parts is a single unit.

The sharding is PyTorch's `fully_shard` (FSDP2); its weights are `DTensor`s.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor, nn

from calmkit.backbones import Backbone
from calmkit.extras import load_fabric
from calmkit.heads import Head
from calmkit.models import InputEncoder, LanguageModel

if TYPE_CHECKING:
    from lightning_fabric.strategies import ModelParallelStrategy
    from torch.distributed.device_mesh import DeviceMesh

__all__ = ["copy_whole", "distribute_like", "fully_sharded", "local", "units_of", "whole"]

_BYTES_AT_ONCE = 2**26  # whole, in one exchange; a larger tensor has one of its own


def fully_sharded() -> "ModelParallelStrategy":
    """A strategy for `Fabric(strategy=...)` that shards the module given to `fit`."""
    strategies = load_fabric("fully_sharded").strategies
    return strategies.ModelParallelStrategy(parallelize_fn=_shard)


def _shard(caller: nn.Module, mesh: "DeviceMesh") -> nn.Module:
    """Shard a module, wrapped in a `Caller`, in place."""
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # Fabric's mesh divides the processes into two axes, for tensors that are split as well.
    mesh = init_device_mesh(mesh.device_type, (get_world_size(),))
    frozen = {p for p in caller.parameters() if not p.requires_grad}
    for unit in units_of(caller):
        # A head is the last in a forward pass and the first in the backward pass, and stays
        # gathered between them. A process whose loss meets NaN therefore misses no exchange in
        # which the others would wait for it, when they draw samples after the loss.
        fully_shard(
            unit,
            mesh=mesh,
            ignored_params=frozen,
            reshard_after_forward=not isinstance(unit, Head),
        )
        # What a model calls besides `forward`.
        called = ("loss", "sample") if isinstance(unit, Head) else ("training_vectors",)
        for method in called if isinstance(unit, Head | InputEncoder) else ():
            register_fsdp_forward_method(unit, method)
    fully_shard(caller, mesh=mesh, ignored_params=frozen)
    return caller


def units_of(module: nn.Module) -> list[nn.Module]:
    """The parts of a language model that are gathered one by one; the rest is one more unit.

    A part that shares a parameter with another, such as a tied embedding, belongs to the rest.

    Args:
        module: A module that contains a language model, or any other, which has no such parts.
    """
    models = [part for part in module.modules() if isinstance(part, LanguageModel)]
    uses = _uses(module)
    return [
        part
        for part in chain.from_iterable(_parts(model) for model in models)
        if (own := _uses(part)) and all(count == uses[p] for p, count in own.items())
    ]


def _parts(module: nn.Module, *, in_backbone: bool = False) -> Iterator[nn.Module]:
    in_backbone = in_backbone or isinstance(module, Backbone)
    if isinstance(module, Head | InputEncoder):
        yield module
    elif in_backbone and isinstance(module, nn.ModuleList):
        yield from module
    else:
        for child in module.children():
            yield from _parts(child, in_backbone=in_backbone)


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """How many parts of a module hold each trained parameter."""
    return Counter(
        p for part in module.modules() for p in part.parameters(recurse=False) if p.requires_grad
    )


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor; a tensor that is not sharded itself."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; every process must call it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def copy_whole(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy the whole of tensors, sharded or not, into others; every process must call it.

    Small tensors that follow each other share an exchange, whose duration hardly depends on its
    size. Only one large tensor, or one group of small ones, is whole at a time.

    Args:
        pairs: A tensor, divided as `fully_sharded` does if it is sharded, and where to copy it.
    """
    group: list[tuple[Tensor, Tensor]] = []
    for source, target in pairs:
        if not _fit([*(earlier for earlier, _ in group), source]):
            _copy_together(group)
            group = []
        group.append((source, target))
    _copy_together(group)


def _fit(sources: list[Tensor]) -> bool:
    """Whether tensors may share an exchange."""
    kinds = {(type(source), source.dtype, source.device) for source in sources}
    return len(kinds) == 1 and sum(source.nbytes for source in sources) <= _BYTES_AT_ONCE


def _copy_together(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Copy tensors that fit together. Process r holds the r-th part of each one's rows."""
    from torch.distributed import all_gather
    from torch.distributed.tensor import DTensor

    sharded = [(s, target) for s, target in pairs if isinstance(s, DTensor)]
    if len(sharded) < 2:
        for source, target in pairs:
            target.copy_(whole(source))
        return
    mesh = sharded[0][0].device_mesh
    # All parts are as large as the first; the last ones are filled up.
    sizes = [-(-s.shape[0] // mesh.size()) * s.shape[1:].numel() for s, _ in sharded]
    own = sharded[0][0].to_local().new_zeros(sum(sizes))
    for (source, _), place in zip(sharded, own.split(sizes), strict=True):
        shard = source.to_local()
        place[: shard.numel()] = shard.flatten()
    found = own.new_empty(mesh.size(), own.numel())
    all_gather([*found.unbind()], own, group=mesh.get_group())
    for (source, target), parts in zip(sharded, found.split(sizes, dim=1), strict=True):
        target.copy_(parts.flatten()[: source.numel()].view(source.shape))


def distribute_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Divide a tensor of the state of a parameter like the parameter, if that is sharded.

    Args:
        tensor: A tensor that each process holds whole. One of another shape stays whole.
        like: The parameter.
    """
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

    if not isinstance(like, DTensor) or tensor.dim() == 0:
        return tensor
    placements = like.placements if tensor.shape == like.shape else [Replicate()]
    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, placements, src_data_rank=None)
