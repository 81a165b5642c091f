"""`save` and `load`: a model, or a part of one, as a folder.

Nothing is pickled, and no code outside calmkit runs unless the caller names it in `trust`.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from calmkit.extras import require
from calmkit.files import flush, partial_of, replacing
from calmkit.models import LanguageModel

from .card import model_card
from .describing import describe
from .errors import SavedModelError
from .files import (
    CARD_FILE,
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelContent,
    load_tensors,
    read_content,
    read_model_file,
    write_model_file,
)
from .limits import BuildingLimit, check_numbers
from .rebuilding import rebuild_module
from .repository import folder_of
from .sameness import check_same
from .stored_tokenizer import StoredTokenizer

__all__ = ["SavableTokenizer", "load", "save", "saved_tokenizer"]

# Errors that a constructor may raise for unchecked arguments.
_REFUSALS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip

_Module = TypeVar("_Module", bound=nn.Module)


@runtime_checkable
class SavableTokenizer(Protocol):
    """A tokenizer that can write itself to a file."""

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`."""
        ...


def save(
    model: nn.Module,
    directory: str | os.PathLike[str],
    *,
    tokenizer: SavableTokenizer | None = None,
    metrics: Mapping[str, float] | None = None,
    protocol: str = "",
) -> None:
    """Write a model: weights with a description that rebuilds it, tokenizer and model card.

    All files are written next to older ones and then replace them, the weights last. If the
    process dies or the disk is full, either the old model or the new one is there.

    Args:
        model: A language model, or any part that is a module.
        directory: Made if missing; other files in it stay.
        tokenizer: Its tokenizer. None: that of `model.tokenizer`, if it can write itself.
        metrics: Numbers by name, for the model card.
        protocol: How they were measured, for the model card.

    Raises:
        CannotBeSavedError: If the model cannot be rebuilt from its constructors' arguments.
        WriteError: If it cannot be written; names the folder.
        ImportError: If safetensors is not installed.
    """
    require("safetensors", "calmkit.save")
    directory = Path(directory)
    description = describe(model)
    check_same(model, description)
    card = model_card(model, description, metrics=metrics or {}, protocol=protocol)
    directory.mkdir(parents=True, exist_ok=True)
    texts = {CONFIG_FILE: json.dumps(description, indent=2) + "\n", CARD_FILE: card}
    own = getattr(model, "tokenizer", None)
    if tokenizer is None and isinstance(own, SavableTokenizer):
        tokenizer = own
    if tokenizer is not None:
        texts = {TOKENIZER_FILE: _content_of(tokenizer, directory), **texts}
    content = ModelContent(description, texts.get(TOKENIZER_FILE, ""))
    names = [*texts, WEIGHTS_FILE]
    with replacing(*(directory / name for name in names)) as (*partials, weights):
        for partial, text in zip(partials, texts.values(), strict=True):
            partial.write_text(text, encoding="utf-8")
        write_model_file(weights, content, model.state_dict())
    flush(directory)


def load(
    directory: str | os.PathLike[str],
    kind: type[_Module] = LanguageModel,
    *,
    trust: Collection[str] = (),
    revision: str | None = None,
) -> _Module:
    """Build the model of a folder and load its weights; in evaluation mode, on the CPU.

    A language model that was saved with its tokenizer has it as `model.tokenizer`.

    Args:
        directory: A folder that `save` wrote, or a repository of the Hugging Face hub,
            `owner/name`, if there is no such folder (extra `hf`).
        kind: The expected class: a language model, or a part such as `Head`.
        trust: Packages outside calmkit, or modules of them, that define parts of the model; their
            code is imported and run.
        revision: Branch, tag or commit of a repository.

    Raises:
        SavedModelError: If a file is missing, damaged, or incompatible with this version.
        UntrustedCodeError: If the model needs code that is not in `trust`; nothing was imported.
    """
    path = folder_of(directory, revision=revision) / WEIGHTS_FILE
    content, tensors = read_model_file(path)
    model = _built(content.model, tensors, path, trust)
    if not isinstance(model, kind):
        raise SavedModelError(
            f"{path} must hold a {kind.__name__}; it holds a {type(model).__name__}. Pass its "
            "class, or one above, as kind."
        )
    load_tensors(model, tensors, path)
    if isinstance(model, LanguageModel) and content.tokenizer:
        model.tokenizer = StoredTokenizer(content.tokenizer, str(path.parent))
    return model.eval()


def _built(
    description: Any, tensors: Mapping[str, Tensor], path: Path, trust: Collection[str]
) -> nn.Module:
    """A described module with new weights; the caller's random state does not change."""
    check_numbers(description, sum(tensor.numel() for tensor in tensors.values()))
    limit = BuildingLimit(tensors, str(path))
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"), limit:
            return rebuild_module(description, trust=trust)
    except SavedModelError:
        raise
    except _REFUSALS as error:
        raise SavedModelError(f"{path}: its description cannot be built: {error}") from error


def saved_tokenizer(directory: str | os.PathLike[str]) -> str:
    """Content of the `tokenizer.json` that a model was saved with; empty if there was none.

    Raises:
        SavedModelError: If there is no saved model, or it is damaged.
    """
    return read_content(Path(directory) / WEIGHTS_FILE).tokenizer


def _content_of(tokenizer: SavableTokenizer, directory: Path) -> str:
    partial = partial_of(directory / TOKENIZER_FILE)
    try:
        tokenizer.save(partial)
        return partial.read_text(encoding="utf-8")
    finally:
        partial.unlink(missing_ok=True)
