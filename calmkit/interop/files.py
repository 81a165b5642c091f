"""Reading a checkpoint's folder: `config.json` and weights, in one file or sharded.

    config.json
    model.safetensors   or  model.safetensors.index.json and the shards it names
    pytorch_model.bin   or  pytorch_model.bin.index.json and the shards it names

If there are several, the first in this order is read, as in transformers. A `.bin` file is a
pickle; it is read with `weights_only`, so that it cannot run code.
"""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calmkit.foreign_data import ForeignDataError, parse_json

from .errors import CheckpointFormatError

__all__ = ["BIN_FILE", "CONFIG_FILE", "Weights", "read_json", "read_weights"]

CONFIG_FILE = "config.json"
BIN_FILE = "pytorch_model.bin"
_SAFE_FILE = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of a checkpoint; they may be mapped from disk, so copy them before use.

    Attributes:
        tensors: Tensors by published name.
        files: The file of each tensor.
        source: The file, or the index of the shards.
    """

    tensors: Mapping[str, Tensor]
    files: Mapping[str, Path]
    source: Path

    def named(self, name: str) -> str:
        """File and key, for error messages."""
        return f"{self.files.get(name, self.source)}: {name}"

    def get(self, name: str) -> Tensor:
        """One tensor.

        Raises:
            CheckpointFormatError: If it is missing.
        """
        if name not in self.tensors:
            raise CheckpointFormatError(f"{self.named(name)} must be there; it is missing.")
        return self.tensors[name]

    def matrix_size(self, name: str, axis: int) -> int:
        """Number of rows (axis 0) or columns (axis 1) of a matrix.

        Raises:
            CheckpointFormatError: If it is missing or not a matrix.
        """
        shape = self.get(name).shape
        if len(shape) != 2:
            raise CheckpointFormatError(
                f"{self.named(name)} must be a matrix; got shape {tuple(shape)}."
            )
        return shape[axis]

    def refuse_others(self, known: Iterable[str]) -> None:
        """Refuse tensors that no part of the model uses, by a `CheckpointFormatError`."""
        if others := sorted(self.tensors.keys() - set(known)):
            raise CheckpointFormatError(
                f"{self.named(others[0])} must not be there: the published network that the "
                f"config describes has no such tensor ({len(others)} unknown in all)."
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that contains one JSON object.

    Raises:
        CheckpointFormatError: If it is missing or contains anything else.
    """
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointFormatError(
            f"{path} must be there: a published checkpoint is a folder with {CONFIG_FILE} and "
            "weights."
        ) from None
    except ForeignDataError as error:
        raise CheckpointFormatError(f"{path} must be JSON; it is damaged ({error}).") from None
    if not isinstance(content, dict):
        raise CheckpointFormatError(
            f"{path} must hold a JSON object; got a {type(content).__name__}."
        )
    return content


def read_weights(folder: Path) -> Weights:
    """Read the weights of a checkpoint.

    Raises:
        CheckpointFormatError: If there are none, a file is damaged or contains code, or the shards
            do not match their index.
    """
    for name in (_SAFE_FILE, BIN_FILE):
        path, index = folder / name, folder / f"{name}.index.json"
        if path.is_file():
            tensors = _read_tensors(path)
            return Weights(tensors, dict.fromkeys(tensors, path), path)
        if index.is_file():
            return _read_shards(index)
    raise CheckpointFormatError(
        f"{folder} must hold {_SAFE_FILE} or {BIN_FILE}, or one of them in shards with its "
        "index.json; there are no weights."
    )


def _read_shards(index: Path) -> Weights:
    file_of = read_json(index).get("weight_map")
    if not isinstance(file_of, dict) or not all(isinstance(f, str) for f in file_of.values()):
        raise CheckpointFormatError(
            f"{index}: weight_map must map the name of each tensor to the name of its file."
        )
    tensors: dict[str, Tensor] = {}
    files: dict[str, Path] = {}
    for name in sorted(set(file_of.values())):
        if Path(name).name != name or name in ("", ".."):
            raise CheckpointFormatError(f"{index}: {name!r} must be a file of this folder.")
        shard = index.parent / name
        if not shard.is_file():
            raise CheckpointFormatError(f"{index}: its shard {name} is missing.")
        found = _read_tensors(shard)
        listed = {key for key, file in file_of.items() if file == name}
        if wrong := sorted(found.keys() ^ listed):
            where = "is in the index only" if wrong[0] in listed else "is not in the index"
            raise CheckpointFormatError(
                f"{shard}: {wrong[0]} must be in the shard and in {index.name}; it {where}."
            )
        tensors |= found
        files |= dict.fromkeys(found, shard)
    return Weights(tensors, files, index)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise CheckpointFormatError(f"{path} must hold named tensors and nothing else.")
    return content


def _read_pickle(path: Path) -> Any:
    # Only the zip format of torch 1.6 and later can be mapped; a damaged file is not a zip file.
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointFormatError(
            f"{path} must hold tensors and nothing else; it holds code, which is not run, or is "
            "damaged."
        ) from error
    except Exception as error:  # reading a damaged pickle can raise anything
        raise _damaged(path, error) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointFormatError(
            f"{path} must be read with safetensors, which is not installed. Install it with pip "
            "install 'calmkit[hf]'."
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointFormatError:
    reason = str(error).strip() or type(error).__name__
    return CheckpointFormatError(
        f"{path} must be whole; it is damaged, perhaps cut short ({reason.splitlines()[0]})."
    )
