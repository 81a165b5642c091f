"""A trained model as a folder that loads anywhere.

    DIRECTORY/config.yaml         the effective config of the run
              model.safetensors   the model, as `calmkit.save` writes it, with its tokenizer
              config.json, tokenizer.json, README.md      copies, for readers

`load_checkpoint` takes folders in the published format too. Code from outside calmkit runs only
if it is named. The config is not read here; see `calmkit.config.model_config`.
"""

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from calmkit.config import TrainExperiment, check_parts
from calmkit.data import TextTokenizer, find_tokenizer
from calmkit.files import replace_file
from calmkit.foreign_data import ForeignDataError, parse_json
from calmkit.interop import (
    check_new,
    load_published_autoencoder,
    load_published_calm,
    new_folder,
    save_published,
)
from calmkit.models import CALM, LanguageModel
from calmkit.saving import (
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    WEIGHTS_FILE,
    PretrainedTokenizer,
    SavedModelError,
    load,
    save,
    saved_tokenizer,
)
from calmkit.saving.limits import BuildingLimit

__all__ = [
    "Checkpoint",
    "check_config_fits",
    "convert_checkpoint",
    "is_published",
    "load_checkpoint",
    "save_checkpoint",
]

_CONFIG, _PUBLISHED, _TOKENIZER = "config.yaml", "config.json", "tokenizer_config.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that was loaded.

    Attributes:
        model: In evaluation mode, on the CPU.
        tokenizer: Its tokenizer; of a model from elsewhere one with the same interface.
        folder: Where it was.
        config: Path of the config it was trained with; None where the folder has none.
    """

    model: LanguageModel
    tokenizer: TextTokenizer
    folder: Path
    config: Path | None


def save_checkpoint(
    directory: Path,
    *,
    model: LanguageModel,
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
    replace_file(directory / _CONFIG, config_text)
    save(model, directory, tokenizer=tokenizer, metrics=metrics, protocol=protocol)


def load_checkpoint(directory: Path, *, trust: Collection[str] = ()) -> Checkpoint:
    """Load a language model and its tokenizer, in calmkit's own format or in the published one.

    Args:
        directory: A folder.
        trust: Packages outside calmkit that the model's parts come from.

    Raises:
        ValueError: If a file is missing or damaged, the model needs other code, there is no
            language model inside, or its tokenizer does not fit.
    """
    _check_folder(directory)
    config: Path | None = None
    if is_published(directory):
        if _is_autoencoder(directory):
            raise _no_language_model(directory, "an autoencoder")
        model, tokenizer = load_published_calm(directory), _pretrained(directory)
    else:
        if (directory / _CONFIG).is_file():
            config = directory / _CONFIG
        model = load(directory, nn.Module, trust=trust)
        if not isinstance(model, LanguageModel):
            raise _no_language_model(directory, f"a {type(model).__name__}")
        tokenizer = _tokenizer(directory)
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"tokenizer of {directory} must have at most the {model.vocab_size} token ids of the "
            f"model; it has {tokenizer.vocab_size}. Is it that of another model?"
        )
    return Checkpoint(model, tokenizer, directory, config)


def check_config_fits(checkpoint: Checkpoint, experiment: TrainExperiment) -> None:
    """Try the parts of a model's config, which may ask for no more than the model itself has.

    Args:
        checkpoint: The model.
        experiment: By its config.

    Raises:
        ValueError: If it asks for more, or a part refuses its arguments.
    """
    with BuildingLimit.of_model(checkpoint.model, f"config of {checkpoint.folder}"):
        check_parts(experiment)


def convert_checkpoint(
    source: Path,
    target: Path,
    *,
    autoencoder: Path | None = None,
    trust: Collection[str] = (),
) -> str:
    """Write a model in the other format: a published one as calmkit's own, or the other way.

    The files of its tokenizer are copied. A published autoencoder in a folder of its own is
    converted too. The target appears at once, whole.

    Args:
        source: A folder in either format.
        target: A new or empty folder.
        autoencoder: Folder of a published autoencoder, for a published model without its own.
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
        model: nn.Module
        if _is_autoencoder(source):
            model = load_published_autoencoder(source)
        else:
            given = None if autoencoder is None else load_published_autoencoder(autoencoder)
            model = load_published_calm(source, given)
        written, tokenizer = "calmkit's format", ""
    else:
        if autoencoder is not None:
            raise ValueError(
                f"autoencoder must be left out, since {source} is in calmkit's format, in which a "
                f"model has its own; got {autoencoder}."
            )
        model = load(source, nn.Module, trust=trust)
        written, tokenizer = "the published format", saved_tokenizer(source)
    with new_folder(target) as folder:
        if written == "calmkit's format":
            save(model, folder)
        else:
            save_published(cast(CALM, model), folder)
        if tokenizer:
            (folder / TOKENIZER_FILE).write_text(tokenizer, encoding="utf-8")
            if written != "calmkit's format" and not (source / _TOKENIZER).exists():
                # Readers of the published format look for the end token here.
                end = _tokenizer(source).end
                of_ours = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
                (folder / _TOKENIZER).write_text(json.dumps(of_ours, indent=1), encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (source / name).is_file() and not (folder / name).exists():
                shutil.copyfile(source / name, folder / name)
    return written


def is_published(directory: Path) -> bool:
    """Whether a folder's `config.json` is that of the published format."""
    if not (file := directory / _PUBLISHED).is_file():  # a device may have no end
        return False
    try:
        content = parse_json(file.read_bytes())
    except (OSError, ForeignDataError):
        return False
    return isinstance(content, dict) and "class_path" not in content


def _is_autoencoder(directory: Path) -> bool:
    """Whether a folder in the published format holds an autoencoder alone."""
    config = parse_json((directory / _PUBLISHED).read_bytes())
    return "num_encoder_layers" in config


def _no_language_model(directory: Path, found: str) -> ValueError:
    return ValueError(
        f"checkpoint {directory} must hold a language model, which can write and be measured; it "
        f"holds {found}."
    )


def _check_folder(directory: Path) -> None:
    found = "there is none"
    if directory.is_dir():
        if is_published(directory) or (directory / WEIGHTS_FILE).is_file():
            return
        found = f"it has neither {WEIGHTS_FILE} nor a published {_PUBLISHED}"
    raise ValueError(
        f"checkpoint {directory} must be a folder written by `calmkit train` or `calmkit.save`, "
        f"or one in the published format; {found}."
    )


def _pretrained(directory: Path) -> TextTokenizer:
    if (directory / TOKENIZER_FILE).is_file():
        return find_tokenizer(str(directory))
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
