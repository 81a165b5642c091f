"""Writing tensors in the format of safetensors, piece by piece, and their digest.

    8 bytes     length of the header
    header      JSON: dtype, shape and offsets of each name; `__metadata__` has texts by name
    data        the tensors' bytes, one after the other

The safetensors library writes to a temporary file of its own choice, readable only by its owner,
which remains if the process is killed. It is therefore used only for reading.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CannotBeSavedError

__all__ = ["digest_of_tensors", "write_tensors"]

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
_ALIGNED_TO = 8


def write_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write a file that safetensors can read.

    Args:
        path: The file.
        tensors: Contiguous tensors on the CPU.
        texts: Texts of the header, by name.

    Raises:
        CannotBeSavedError: If the format has no name for a dtype.
    """
    # The widest dtypes first, so that each tensor begins at a multiple of its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(texts)}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        if tensor.dtype not in _NAMES:
            raise CannotBeSavedError(
                f"{name} must have a dtype that safetensors has, to be saved; got {tensor.dtype}."
            )
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % _ALIGNED_TO)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little"))
        file.write(content)
        for name in names:
            file.write(_bytes_of(tensors[name]))


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and values, in hexadecimal.

    Args:
        tensors: Contiguous tensors on the CPU.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a tensor, without a copy."""
    array: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)
