"""A trained model as a folder that loads anywhere.

    DIRECTORY/config.yaml         the effective config of the run
              model.safetensors   the model, as `calmkit.save` writes it, with its tokenizer
              config.json, tokenizer.json, README.md      copies, for readers

`load_checkpoint` takes folders in the published format too. Code from outside calmkit runs only
if it is named.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from calmkit.data import TextTokenizer
from calmkit.interop import load_published_autoencoder, load_published_calm, save_published
from calmkit.interop.writing import check_new
from calmkit.models import CALM
from calmkit.saving import (
    PretrainedTokenizer,
    SavedModelError,
    load,
    save,
    saved_tokenizer,
)
from calmkit.saving.pretrained import TOKENIZER_FILES
from calmkit.saving.rebuilding import check_trusted

__all__ = [
    "Checkpoint",
    "convert_checkpoint",
    "is_published",
    "load_checkpoint",
    "save_checkpoint",
]

# Parts of a config that may be given by the name of a class alone.
_PART_KEYS = ("autoencoder", "backbone", "head", "optimizer", "autoencoder_optimizer", "logger")
_CONFIG, _PUBLISHED = "config.yaml", "config.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that was loaded.

    Attributes:
        model: In evaluation mode, on the CPU.
        tokenizer: Its tokenizer; of a model from elsewhere one with the same interface.
        folder: Where it was.
        config: Path of the config it was trained with; None where the folder has none.
    """

    model: CALM
    tokenizer: TextTokenizer
    folder: Path
    config: Path | None


def save_checkpoint(
    directory: Path,
    *,
    model: CALM,
    tokenizer: TextTokenizer,
    config_text: str,
    metrics: Mapping[str, float] | None = None,
    protocol: str = "",
) -> None:
    """Write a model; each file replaces an older one in a single step, the weights last.

    Args:
        directory: Made if missing.
        model: The model.
        tokenizer: Its tokenizer.
        config_text: The effective config.
        metrics: For the model card: numbers by name.
        protocol: For the model card: how they were measured.
    """
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / ".partial"
    partial.write_text(config_text, encoding="utf-8")
    os.replace(partial, directory / _CONFIG)
    save(model, directory, tokenizer=tokenizer, metrics=metrics, protocol=protocol)


def load_checkpoint(directory: Path, *, trust: Collection[str] = ()) -> Checkpoint:
    """Load a language model and its tokenizer, in calmkit's own format or in the published one.

    Args:
        directory: A folder.
        trust: Packages outside calmkit that the model's parts come from.

    Raises:
        ValueError: If a file is missing or damaged, or the model needs other code.
    """
    _check_folder(directory)
    if is_published(directory):
        model = load_published_calm(directory)
        return Checkpoint(model, _pretrained(directory), directory, None)
    config = directory / _CONFIG
    if config.is_file():
        _check_config(config, trust)
    model = load(directory, CALM, trust=trust)
    found = config if config.is_file() else None
    return Checkpoint(model, _tokenizer(directory), directory, found)


def convert_checkpoint(source: Path, target: Path, *, trust: Collection[str] = ()) -> str:
    """Write a model in the other format: a published one as calmkit's own, or the other way.

    The files of its tokenizer are copied. A published autoencoder in a folder of its own is
    converted too.

    Args:
        source: A folder in either format.
        target: A new or empty folder.
        trust: As in `load_checkpoint`.

    Returns:
        The format that was written, in words.

    Raises:
        ValueError: If the source cannot be read, the target holds something, or the published
            format cannot express the model.
    """
    _check_folder(source)
    check_new(target)
    if is_published(source):
        config = json.loads((source / _PUBLISHED).read_text(encoding="utf-8"))
        alone = "num_encoder_layers" in config
        save(load_published_autoencoder(source) if alone else load_published_calm(source), target)
        written = "calmkit's format"
    else:
        model = load(source, nn.Module, trust=trust)
        save_published(cast(CALM, model), target)
        if tokenizer := saved_tokenizer(source):
            (target / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        written = "the published format"
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and not (target / name).exists():
            shutil.copyfile(source / name, target / name)
    return written


def is_published(directory: Path) -> bool:
    """Whether a folder's `config.json` is that of the published format."""
    try:
        content = json.loads((directory / _PUBLISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "class_path" not in content


def _check_folder(directory: Path) -> None:
    if not directory.is_dir():
        raise ValueError(
            f"checkpoint {directory} must be a folder written by `calmkit train` or "
            "`calmkit.save`, or one in the published format; there is none."
        )


def _check_config(path: Path, trust: Collection[str]) -> None:
    """Refuse code from outside in the config of a run, which names classes of its own."""
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SavedModelError(f"{path} must be YAML; it is damaged ({error}).") from None
    allowed = (*trust, "torch.optim", "lightning_fabric.loggers")
    for name in _classes(config, top=True):
        if "." in name:  # a bare name is one of the known classes
            check_trusted({"name": name}, allowed)


def _classes(value: object, *, top: bool = False) -> Iterator[str]:
    """Names of classes in a config: `head: pkg.Class`, or `head: {class_path: pkg.Class}`."""
    if isinstance(value, dict):
        for key, entry in value.items():
            named = key == "class_path" or (top and key in _PART_KEYS)
            if named and isinstance(entry, str):
                yield entry
            yield from _classes(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _classes(entry)


def _pretrained(directory: Path) -> TextTokenizer:
    return cast(TextTokenizer, PretrainedTokenizer.of_folder(directory))


def _tokenizer(directory: Path) -> TextTokenizer:
    content = saved_tokenizer(directory)
    if not content:
        return _pretrained(directory)
    from tokenizers import Tokenizer

    try:
        return TextTokenizer(Tokenizer.from_str(content))
    except Exception as error:  # the library raises bare Exceptions
        raise SavedModelError(
            f"{directory}: the tokenizer inside the weights cannot be read: {error}."
        ) from None
