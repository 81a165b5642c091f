"""`save` and `load`: a model, or a part of one, as a folder.

Nothing is pickled, and nothing outside calmkit runs unless the caller names it in `trust`.
"""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from torch import nn

from calmkit.files import partial_of, replace_file
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
from .sameness import check_same, untrained

__all__ = ["SavableTokenizer", "load", "save", "saved_tokenizer"]

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
    """Write a model: weights with the description that builds it, tokenizer and model card.

    Each file replaces an older one in a single step, the weights last: whenever the process dies,
    the old model or the new one is there.

    Args:
        model: A language model, or any part that is a module.
        directory: Made if missing; other files in it stay.
        tokenizer: Its tokenizer.
        metrics: For the card: numbers by name.
        protocol: For the card: how they were measured.

    Raises:
        CannotBeSavedError: If the model cannot be built again from its constructors' arguments.
    """
    directory = Path(directory)
    description = describe(model)
    check_same(model, description)
    card = model_card(model, description, metrics=metrics or {}, protocol=protocol)
    directory.mkdir(parents=True, exist_ok=True)
    content = ModelContent(description, "")
    if tokenizer is not None:
        content = ModelContent(description, _content_of(tokenizer, directory))
        replace_file(directory / TOKENIZER_FILE, content.tokenizer)
    replace_file(directory / CONFIG_FILE, json.dumps(description, indent=2) + "\n")
    replace_file(directory / CARD_FILE, card)
    write_model_file(directory / WEIGHTS_FILE, content, model.state_dict())


def load(
    directory: str | os.PathLike[str],
    kind: type[_Module] = LanguageModel,
    *,
    trust: Collection[str] = (),
) -> _Module:
    """Build the model of a folder and load its weights; in evaluation mode, on the CPU.

    Args:
        directory: A folder that `save` wrote.
        kind: What must be in it: a language model, or a part such as `Head`.
        trust: Packages outside calmkit, or modules of them, that the model's parts come from:
            their code is imported and run.

    Raises:
        SavedModelError: If a file is missing or damaged, or does not fit this version.
        UntrustedCodeError: If the model needs code that is not in `trust`; nothing was imported.
    """
    path = Path(directory) / WEIGHTS_FILE
    content, tensors = read_model_file(path)
    model = untrained(content.model, trust=trust, device="cpu")
    if not isinstance(model, kind):
        raise SavedModelError(
            f"{path} must hold a {kind.__name__}; it holds a {type(model).__name__}. Pass its "
            "class, or one above, as kind."
        )
    load_tensors(model, tensors, path)
    return model.eval()


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
