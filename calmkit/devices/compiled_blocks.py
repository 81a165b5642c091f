"""Compilation of a model's blocks during training, one by one and in place.

The blocks of a model (layers of the backbone, residual blocks of head and autoencoder) take most
of a step. Each is compiled by itself as one full graph. Blocks of one kind share a compilation, so
that its time does not grow with depth. Everything between them stays plain Python: masks, random
draws, checks of the data.

`nn.Module.compile` changes only how a module is called. Names in the state, pickling and saving
are those of the plain module. Measurements between steps (`uncompiled`) see the plain module too:
they draw samples of many shapes, and each would be compiled anew.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from calmkit.private_torch import compiled_call, many_compilations, set_compiled_call

__all__ = ["blocks_of", "check_compiler", "compile_alike", "compiled_blocks", "uncompiled"]

T = TypeVar("T")


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of a module: what stands in its lists, apart from PyTorch's own layers.

    A block within a block is a part of it.

    Args:
        module: Any module; itself no block.
    """
    found: list[nn.Module] = []
    for child in module.children():
        in_list = isinstance(module, nn.ModuleList | nn.Sequential)
        if in_list and not type(child).__module__.startswith("torch.nn."):
            found.append(child)
        else:
            found += blocks_of(child)
    return found


@contextmanager
def compiled_blocks(
    module: nn.Module, *, when: bool = True, backend: str | Callable[..., Any] = "inductor"
) -> Iterator[None]:
    """Inside the block of code, calls of the module's blocks run compiled.

    Args:
        module: The module that is trained.
        when: Whether to compile; if False, the block has no effect.
        backend: A backend of `torch.compile`.
    """
    if not when:
        yield
        return
    blocks = blocks_of(module)
    for block in blocks:
        block.compile(fullgraph=True, backend=backend)
    try:
        with many_compilations(), warnings.catch_warnings():
            # The compiler itself looks at `.grad` of what a block reads.
            warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
            yield
    finally:
        for block in blocks:
            set_compiled_call(block, None)


def compile_alike(copy: nn.Module, module: nn.Module) -> None:
    """Compile the blocks of a deep copy, which inherits no compilation, if the module's are."""
    for block, own in zip(blocks_of(copy), blocks_of(module), strict=True):
        if compiled_call(own) is not None:
            block.compile(fullgraph=True)


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a CPU without a C++ compiler.

    Raises:
        ValueError: If PyTorch would find none.
    """
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    needed = device.type == "cpu" and sys.platform != "win32"
    if needed and not any(map(shutil.which, names)):
        raise ValueError(
            "compile must be false on a CPU without a C++ compiler; found no "
            f"{' or '.join(names)}. Install one, or name one in the environment variable CXX."
        )


def uncompiled(measure: Callable[[nn.Module], T]) -> Callable[[nn.Module], T]:
    """The measurement, made on the plain module.

    Args:
        measure: Takes the module, whose blocks may be compiled.
    """

    def plainly(module: nn.Module) -> T:
        calls = [(block, compiled_call(block)) for block in blocks_of(module)]
        for block, _ in calls:
            set_compiled_call(block, None)
        try:
            return measure(module)
        finally:
            for block, call in calls:
                set_compiled_call(block, call)

    return plainly
