"""The files of a saved model, each replaced in a single step, the weights last.

    model.safetensors   weights and buffers; its header holds the description of the model, and
                        the tokenizer
    config.json         that description, for readers
    tokenizer.json      that tokenizer, for other libraries
    README.md           the model card

`model.safetensors` alone is the model: whenever the process dies, it is the old one or the new
one, whole. The other files are copies and are not read again.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from calmkit import __version__
from calmkit.extras import require
from calmkit.files import flush, partial_of

from .errors import CannotBeSavedError, SavedModelError

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "ModelContent",
    "load_tensors",
    "read_content",
    "read_model_file",
    "write_model_file",
]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
_KEY, _FORMAT = "calmkit", 1
_PUBLISHED = "The published format is read by calmkit.interop, and converted by `calmkit convert`."

_T = TypeVar("_T")


@dataclass(frozen=True)
class ModelContent:
    """What stands in the header of the weights.

    Attributes:
        model: What builds the model; see `describe`.
        tokenizer: Content of its `tokenizer.json`; empty if it has none.
    """

    model: Any
    tokenizer: str


def write_model_file(path: Path, content: ModelContent, state: Mapping[str, Tensor]) -> None:
    """Replace `model.safetensors`.

    Args:
        path: The file.
        content: For its header.
        state: The model's tensors.
    """
    from safetensors.torch import save_file

    stamp = {"format": _FORMAT, "version": __version__}
    header = {_KEY: json.dumps(stamp | dataclasses.asdict(content))}
    partial = partial_of(path)
    save_file(_apart(state), partial, metadata=header)
    flush(partial)
    os.replace(partial, path)
    flush(path.parent)


def read_content(path: Path) -> ModelContent:
    """What the header says, without the tensors.

    Raises:
        SavedModelError: If the file is missing, damaged, or not written by `calmkit.save`.
    """
    return _read(path, lambda file: None)[0]


def read_model_file(path: Path) -> tuple[ModelContent, dict[str, Tensor]]:
    """What the header says, and the tensors, on the CPU.

    Raises:
        SavedModelError: If the file is missing, damaged, or not written by `calmkit.save`.
    """
    return _read(path, lambda file: {name: file.get_tensor(name) for name in file.keys()})


def load_tensors(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load tensors in the precision of the file.

    Raises:
        SavedModelError: If one is missing, unknown or of another shape.
    """
    own = model.state_dict(keep_vars=True)
    if wrong := sorted(own.keys() ^ tensors.keys()):
        where = "in the file only" if wrong[0] in tensors else "in the model only"
        raise SavedModelError(f"{path}: {wrong[0]} must be in file and model; it is {where}.")
    for name, tensor in tensors.items():
        if own[name].shape != tensor.shape:
            raise SavedModelError(
                f"{path}: {name} must have shape {tuple(own[name].shape)}, which follows from the "
                f"description; got {tuple(tensor.shape)}."
            )
        if own[name].dtype != tensor.dtype:
            own[name].data = own[name].data.to(tensor.dtype)
    # Copied into, so that a weight with two names stays one, but where there is no memory yet.
    model.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in own.values()))


def _read(path: Path, take: Callable[[Any], _T]) -> tuple[ModelContent, _T]:
    require("safetensors", "calmkit.load")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise SavedModelError(
            f"{path} must be there: a saved model is a folder with {WEIGHTS_FILE}, as "
            f"`calmkit.save` and `calmkit train` write it. {_PUBLISHED}"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            if content["format"] != _FORMAT:
                raise SavedModelError(
                    f"{path} must have format {_FORMAT}, which this version of calmkit reads; "
                    f"got {content['format']}, written by calmkit {content['version']}."
                )
            return ModelContent(content["model"], content["tokenizer"]), take(file)
    except (SafetensorError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise SavedModelError(f"{path} is damaged, perhaps cut short: {first}") from None
    except (KeyError, TypeError, json.JSONDecodeError):
        raise SavedModelError(
            f"{path} must be written by `calmkit.save`, with the description of the model in its "
            f"header; it has none. {_PUBLISHED}"
        ) from None


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU that share no memory; the format has none that do."""
    tensors, seen = {}, set()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CannotBeSavedError(
                f"{name} of the state must be a tensor to be saved; got {type(tensor).__name__}."
            )
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        tensors[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return tensors
