"""What PyTorch gives only by private names; each has a test, so that a change is seen.

`torch.func` wraps tensors: under `vmap` one stands for many, whose numbers cannot be read. Such
wrappers are nested as the transforms are, `vmap(grad(f))` for instance.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _python_dispatch, _pytree

__all__ = [
    "TorchDispatchMode", "compiled_call", "distance_gradient", "has_values", "in_transform",
    "many_compilations", "map_tensors", "runs_while_tracing", "set_compiled_call",
    "shares_memory", "storage_id", "takes_device", "without_memory_like",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=Tensor)


class TorchDispatchMode(_python_dispatch.TorchDispatchMode):
    """A context that runs every operation of PyTorch inside by its `__torch_dispatch__`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether to be kept from the compiler, which PyTorch would have to load for that."""
        return False


def map_tensors(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """The same nested containers, with each tensor in them changed."""
    # The arguments of most operations: PyTorch's own function takes much longer for these.
    if isinstance(tree, Tensor):
        return change(tree)
    if type(tree) in (tuple, list):
        return type(tree)(map_tensors(change, entry) for entry in tree)
    if type(tree) in _WITHOUT_TENSORS:
        return tree
    return _pytree.tree_map_only(Tensor, change, tree)


_WITHOUT_TENSORS = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout)


@functools.cache
def takes_device(operation: Any) -> bool:
    """Whether an operation, an `OpOverload`, has an argument named `device`."""
    return any(argument.name == "device" for argument in operation._schema.arguments)


@functools.cache
def shares_memory(operation: Any) -> bool:
    """Whether an operation, an `OpOverload`, writes into an argument or returns a view."""
    schema = operation._schema
    return any(one.alias_info is not None for one in (*schema.arguments, *schema.returns))


def storage_id(tensor: Tensor) -> int:
    """The same number for all tensors that share their memory, also where there is none."""
    return tensor.untyped_storage()._cdata


def without_memory_like(kind: type[T], tensor: Tensor) -> T:
    """A tensor of another class with this one's shape, strides and dtype; on the CPU, as it says.

    Args:
        kind: A subclass of `Tensor` with a `__torch_dispatch__`.
        tensor: On any device, also the meta device.
    """
    return Tensor._make_wrapper_subclass(
        kind,
        tensor.shape,
        strides=tensor.stride(),
        storage_offset=tensor.storage_offset(),
        dtype=tensor.dtype,
        device=torch.device("cpu"),
    )


def runs_while_tracing(function: F) -> F:
    """Keep a function out of compiled graphs: its result there is a constant.

    `torch.compiler.assume_constant_result` sets this same mark, but loads the compiler to do so,
    at the cost of seconds at import.

    Args:
        function: Takes constants only, such as a device; no tensors.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def many_compilations() -> AbstractContextManager[None]:
    """Allow one function to be compiled for 64 cases, not 8: all modules' calls are one function.

    PyTorch counts the compilations of `nn.Module.__call__` together, whatever the module.
    """
    return torch._dynamo.config.patch(recompile_limit=64)


def compiled_call(module: nn.Module) -> Callable[..., Any] | None:
    """What `module.compile()` has made; None if the module's calls are plain."""
    return module._compiled_call_impl


def set_compiled_call(module: nn.Module, call: Callable[..., Any] | None) -> None:
    """Make a module's calls run `call`, from `compiled_call`; None makes them plain."""
    module._compiled_call_impl = call


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
