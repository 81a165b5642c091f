"""The files of a saved model, written next to the old ones and then renamed, the weights last.

    model.safetensors   weights and buffers; its header holds the description of the model, the
                        tokenizer, and SHA-256 digests of all three
    config.json         the description, for readers
    tokenizer.json      the tokenizer, for other libraries
    README.md           the model card

`model.safetensors` alone is the model. Whenever the process dies, it is the complete old or new
one. The other files are copies and are never read.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from calmkit import __version__
from calmkit.extras import require
from calmkit.foreign_data import ForeignDataError, parse_json

from .errors import CannotBeSavedError, SavedModelError
from .tensor_files import digest_of_tensors, write_tensors

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "ModelContent",
    "is_of_calmkit",
    "load_tensors",
    "models_below",
    "read_content",
    "read_model_file",
    "write_model_file",
]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
CARD_FILE = "README.md"
_KEY, _DIGEST_KEY, _FORMAT = "calmkit", "calmkit-sha256", 2


@dataclass(frozen=True)
class ModelContent:
    """The content of the header of the weights.

    Attributes:
        model: The description of the model; see `describe`.
        tokenizer: Content of its `tokenizer.json`; empty if it has none.
    """

    model: Any
    tokenizer: str


def write_model_file(path: Path, content: ModelContent, state: Mapping[str, Tensor]) -> None:
    """Write `model.safetensors`.

    Args:
        path: The file.
        content: Content of its header.
        state: The model's tensors.

    Raises:
        CannotBeSavedError: If the format cannot store an entry of the state.
    """
    tensors = _on_cpu(state)
    stamp = {"format": _FORMAT, "version": __version__, "tensors": digest_of_tensors(tensors)}
    text = json.dumps(stamp | dataclasses.asdict(content))
    write_tensors(path, tensors, {_KEY: text, _DIGEST_KEY: _digest(text)})


def read_content(path: Path) -> ModelContent:
    """The content of the header, without the tensors.

    Raises:
        SavedModelError: If the file is missing, damaged, or not written by `calmkit.save`.
    """
    return _read(path, with_tensors=False)[0]


def read_model_file(path: Path) -> tuple[ModelContent, dict[str, Tensor]]:
    """The content of the header, and the tensors on the CPU.

    Raises:
        SavedModelError: If the file is missing, damaged, or not written by `calmkit.save`.
    """
    return _read(path, with_tensors=True)


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
    # Copied, so that a weight with two names stays one; assigned if there is no memory yet.
    model.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in own.values()))


def models_below(folder: Path) -> str:
    """A sentence, after a space, that names the models inside a folder; empty if it has none.

    A comparison has several, in its folder `models`.
    """
    files = [*folder.glob(f"*/{WEIGHTS_FILE}"), *folder.glob(f"models/*/{WEIGHTS_FILE}")]
    places = sorted(file.parent.as_posix() for file in files)
    if not places:
        return ""
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return f" Models are in {', '.join(places[:5])}{more}."


def is_of_calmkit(path: Path) -> bool:
    """Whether a file of weights is there and calmkit's own; a damaged one may be."""
    require("safetensors", "calmkit.load")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return _KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True


def _published(folder: Path) -> str:
    """A sentence, after a space, for a folder that may have the published format."""
    if not (folder / CONFIG_FILE).is_file():
        return ""
    return (
        f" If {folder} has the published format, `calmkit convert --checkpoint {folder} --output "
        "NEW` writes it in calmkit's."
    )


def _read(path: Path, *, with_tensors: bool) -> tuple[ModelContent, dict[str, Tensor]]:
    require("safetensors", "calmkit.load")
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        folder = path.parent
        there = models_below(folder) if folder.is_dir() else f" There is no folder {folder}."
        raise SavedModelError(
            f"{path} must be there: a saved model is a folder with {WEIGHTS_FILE}, as "
            f"`calmkit.save` and `calmkit train` write it.{there}{_published(folder)}"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            texts = file.metadata() or {}
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise SavedModelError(f"{path} is damaged, perhaps cut short: {first}") from None
    try:
        content = _checked(path, texts)
        if with_tensors and content["tensors"] != digest_of_tensors(tensors):
            raise _altered(path)
        return ModelContent(content["model"], content["tokenizer"]), tensors
    except (KeyError, TypeError, ForeignDataError) as error:
        reason = f" ({error})" if isinstance(error, ForeignDataError) else ""
        raise SavedModelError(
            f"{path} must be written by `calmkit.save`, with the description of the model in its "
            f"header; it has none{reason}.{_published(path.parent)}"
        ) from None


def _checked(path: Path, texts: Mapping[str, str]) -> dict[str, Any]:
    """Calmkit's text in the header as data, if its format and digest are correct."""
    content = parse_json(texts[_KEY])
    if content["format"] != _FORMAT:
        raise SavedModelError(
            f"{path} must have format {_FORMAT}, which this version of calmkit reads; got "
            f"{content['format']}, written by calmkit {content['version']}. Read it with that "
            "one, or save the model again with this one."
        )
    if texts[_DIGEST_KEY] != _digest(texts[_KEY]):
        raise _altered(path)
    return content


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _altered(path: Path) -> SavedModelError:
    return SavedModelError(
        f"{path} is damaged: its content is not what was saved, by the digest in its header. Copy "
        "or download it again."
    )


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CannotBeSavedError(
                f"{name} of the state must be a tensor to be saved; got {type(tensor).__name__}."
            )
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
