"""The files of a checkpoint that hold tensors: weights and optimiser state, whole or sharded.

    model.safetensors, optimizer.pt           whole
    shard-00001-model-....safetensors, ...    sharded: weights and moments, a file of each process
    optimizer.pt                              the rest of the optimiser's state

Either form can be read in any number of processes, with any strategy. Shards are written and read
by `torch.distributed.checkpoint` in the safetensors format, which knows the place of each shard in
its tensor; its own format is made of pickles.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from calmkit.cluster import Placement, distribute_like, whole
from calmkit.extras import require

__all__ = ["OPTIMIZER_FILE", "divided", "read_state", "write_rest", "write_shards", "write_whole"]

OPTIMIZER_FILE = "optimizer.pt"
_MODEL_FILE = "model.safetensors"
_WEIGHTS, _STATE = "weights.", "optimizer."  # of names in shards


def write_whole(folder: Path, module: nn.Module, optimizer: Optimizer) -> None:
    """Write the weights and the optimiser's state of a module that is not sharded."""
    require("safetensors", "a checkpoint")
    from safetensors.torch import save_model

    save_model(module, str(folder / _MODEL_FILE))
    _save(optimizer.state_dict(), folder / OPTIMIZER_FILE)


def divided(module: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and state of a sharded module; every process must call it.

    Args:
        module: The module.
        optimizer: Its optimiser.

    Returns:
        The tensors that are written as shards, by name, and the rest of the optimiser's state: its
        settings, numbers of steps and tensors of other shapes than their parameters.
    """
    rest = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    tensors = _weights(module)
    for number, values in rest["state"].items():
        shape = parameters[number].shape
        sharded = {k: v for k, v in values.items() if isinstance(v, Tensor) and v.shape == shape}
        tensors |= {f"{_STATE}{number}.{name}": value for name, value in sharded.items()}
        rest["state"][number] = {
            name: whole(value) if isinstance(value, Tensor) else value
            for name, value in values.items()
            if name not in sharded
        }
    return tensors, rest


def write_rest(folder: Path, rest: dict[str, Any]) -> None:
    """Write what is not sharded of an optimiser's state."""
    _save(rest, folder / OPTIMIZER_FILE)


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write this process's shards of tensors; every process must call it.

    Args:
        folder: A folder that every process can write in.
        tensors: From `divided`.

    Raises:
        OSError: In every process, if one of them could not write.
    """
    require("safetensors", "a checkpoint")
    from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter, save

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(tensors, storage_writer=writer)
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            if isinstance(failure, OSError):
                raise failure from None
        raise RuntimeError(str(error)) from None


def read_state(folder: Path, placement: Placement, optimizer: Optimizer) -> None:
    """Load weights and state into parts of the same build, in every process.

    Args:
        folder: The checkpoint.
        placement: The module, sharded or not.
        optimizer: An optimiser over its trained parameters.

    Raises:
        RuntimeError, ValueError: If names or shapes do not match.
        pickle.UnpicklingError: If the optimiser's file holds more than tensors.
    """
    require("safetensors", "a checkpoint")
    from safetensors.torch import load_model

    state = torch.load(folder / OPTIMIZER_FILE, map_location="cpu", weights_only=True)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if (folder / _MODEL_FILE).exists():
        load_model(placement.module, folder / _MODEL_FILE)
        placement.scatter()
        for number, values in state["state"].items():
            state["state"][number] = {
                name: distribute_like(value, parameters[number])
                if isinstance(value, Tensor)
                else value
                for name, value in values.items()
            }
    else:
        for name, value in _read_shards(folder, placement, parameters).items():
            number, _, key = name.partition(".")
            state["state"].setdefault(int(number), {})[key] = value
    optimizer.load_state_dict(state)


def _read_shards(
    folder: Path, placement: Placement, parameters: list[nn.Parameter]
) -> dict[str, Tensor]:
    """Load weights from shards, in place, and return the tensors of the optimiser's state."""
    from torch.distributed.checkpoint import (
        CheckpointException,
        HuggingFaceStorageReader,
        TensorStorageMetadata,
        load,
    )

    reader = HuggingFaceStorageReader(str(folder))
    found = {
        name: stored
        for name, stored in reader.read_metadata().state_dict_metadata.items()
        if isinstance(stored, TensorStorageMetadata)  # the others hold pickles
    }
    targets = _weights(placement.trained)
    state: dict[str, Tensor] = {}
    for name, stored in found.items():
        if name.startswith(_STATE):
            like = parameters[int(name.split(".")[1])]
            zeros = torch.zeros_like(like, dtype=stored.properties.dtype, requires_grad=False)
            state[name.removeprefix(_STATE)] = targets[name] = zeros
        if name not in targets or targets[name].shape != stored.size:
            raise ValueError(f"It holds {name!r} of shape {tuple(stored.size)}.")
    if missing := [name for name in targets if name not in found]:
        raise ValueError(f"It lacks {missing[0]!r}.")
    with warnings.catch_warnings(), torch.no_grad():
        # That a single process loads alone is no news.
        warnings.filterwarnings("ignore", message="torch.distributed is")
        try:
            load(targets, storage_reader=reader, no_dist=not placement.is_sharded)
        except CheckpointException as error:
            raise RuntimeError(str(error)) from None
    return state


def _weights(module: nn.Module) -> dict[str, Any]:
    """The weights and buffers that a module saves; one that has two names only by the first."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        found.setdefault(id(value), (_WEIGHTS + name, value.detach()))
    return dict(found.values())


def _save(content: Any, path: Path) -> None:
    # Opened here: PyTorch does not report why it cannot write a file that it opens itself.
    with path.open("wb") as file:
        torch.save(content, file)
