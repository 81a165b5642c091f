"""A trained model as a self-contained folder.

    DIRECTORY/config.yaml         the effective config of the run
              model.safetensors   the model with its tokenizer, as written by `calmkit.save`
              config.json, tokenizer.json, README.md      copies, for readers
              ema/                the same with averaged weights, if the run has them

`load_checkpoint` also accepts folders in the published format, and models of the Hugging Face hub,
`owner/name`, of which only the weights are downloaded. Code from outside calmkit runs only if the
caller trusts it. The config is not read here; see `calmkit.config.model_config`.
"""

import json
import os
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
    folder_of,
    load,
    models_below,
    save,
    saved_tokenizer,
)
from calmkit.saving.limits import BuildingLimit
from calmkit.training import TrainingResult

__all__ = [
    "AVERAGED",
    "Checkpoint",
    "check_config_fits",
    "convert_checkpoint",
    "is_published",
    "load_checkpoint",
    "save_checkpoint",
    "tokenizer_of",
]

AVERAGED = "ema"
"""Name of the folder of the averaged weights in that of a model."""

_CONFIG, _PUBLISHED, _TOKENIZER = "config.yaml", "config.json", "tokenizer_config.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded model.

    Attributes:
        model: The model, in evaluation mode, on the CPU.
        tokenizer: Its tokenizer, or one with the same interface for a published model.
        folder: The folder it was loaded from; of a model of the hub, that of the download.
        config: Path of its training config; None if the folder has none.
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
    training: TrainingResult | None = None,
    metrics: Mapping[str, float] | None = None,
    protocol: str = "",
) -> None:
    """Write a model; each file is replaced atomically, the weights last.

    Args:
        directory: Folder, created if missing.
        model: The model, with its last weights.
        tokenizer: Its tokenizer.
        config_text: The effective config.
        training: Its training; averaged weights are saved too, and the scores are theirs.
        metrics: Scores by name, for the model card.
        protocol: Protocol of the scores, for the model card.
    """
    if training is not None and training.average is not None:
        with training.averaged():
            save_checkpoint(
                directory / AVERAGED,
                model=model,
                tokenizer=tokenizer,
                config_text=config_text,
                metrics=metrics,
                protocol=protocol,
            )
        metrics, protocol = None, f"Not measured; {AVERAGED}/ holds the averaged weights."
    directory.mkdir(parents=True, exist_ok=True)
    replace_file(directory / _CONFIG, config_text)
    save(model, directory, tokenizer=tokenizer, metrics=metrics, protocol=protocol)


def load_checkpoint(place: str | os.PathLike[str], *, trust: Collection[str] = ()) -> Checkpoint:
    """Load a language model and its tokenizer from calmkit's own or the published format.

    Args:
        place: A folder, or a model of the hub in calmkit's own format, `owner/name`.
        trust: Packages outside calmkit that the model's parts come from.

    Raises:
        ValueError: If a file is missing or damaged, the model needs untrusted code, the folder
            holds no language model, or the tokenizer does not fit.
    """
    directory = folder_of(place)
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
        tokenizer = tokenizer_of(directory)
    if tokenizer.vocab_size > model.vocab_size:
        raise ValueError(
            f"tokenizer of {directory} must have at most the {model.vocab_size} token ids of the "
            f"model; it has {tokenizer.vocab_size}. Does it belong to another model?"
        )
    return Checkpoint(model, tokenizer, directory, config)


def check_config_fits(checkpoint: Checkpoint, experiment: TrainExperiment) -> None:
    """Check the parts of a model's config, which must not be larger than the model itself.

    Raises:
        ValueError: If the parts are larger, or a part refuses its arguments.
    """
    with BuildingLimit.of_model(checkpoint.model, f"config of {checkpoint.folder}"):
        check_parts(experiment)


def convert_checkpoint(
    place: str | os.PathLike[str],
    target: Path,
    *,
    autoencoder: Path | None = None,
    trust: Collection[str] = (),
) -> str:
    """Convert a model from the published format to calmkit's own, or back.

    The tokenizer files are copied. A published autoencoder in its own folder can be converted as
    well. The target folder appears only when it is complete.

    Args:
        place: A folder in either format, or a model of the hub in calmkit's own.
        target: A new or empty folder.
        autoencoder: Folder of a published autoencoder, for a published model without one.
        trust: As in `load_checkpoint`.

    Returns:
        The name of the format that was written.

    Raises:
        ValueError: If the source cannot be read, the target is not empty, or the published format
            cannot express the model.
    """
    source = folder_of(place)
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
                f"autoencoder must be omitted, since {source} is in calmkit's format, which "
                f"includes the autoencoder; got {autoencoder}."
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
                end = tokenizer_of(source).end
                tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
                (folder / _TOKENIZER).write_text(
                    json.dumps(tokenizer_config, indent=1), encoding="utf-8"
                )
        for name in TOKENIZER_FILES:
            if (source / name).is_file() and not (folder / name).exists():
                shutil.copyfile(source / name, folder / name)
    return written


def is_published(directory: Path) -> bool:
    """Whether a folder's `config.json` has the published format."""
    if not (file := directory / _PUBLISHED).is_file():  # reading a device may never end
        return False
    try:
        content = parse_json(file.read_bytes())
    except (OSError, ForeignDataError):
        return False
    return isinstance(content, dict) and "class_path" not in content


def _is_autoencoder(directory: Path) -> bool:
    """Whether a folder in the published format holds only an autoencoder."""
    config = parse_json((directory / _PUBLISHED).read_bytes())
    return "num_encoder_layers" in config


def _no_language_model(directory: Path, found: str) -> ValueError:
    return ValueError(
        f"checkpoint {directory} must hold a language model, which can generate and be evaluated; "
        f"it holds {found}."
    )


def _check_folder(directory: Path) -> None:
    found = "there is none"
    if directory.is_dir():
        if is_published(directory) or (directory / WEIGHTS_FILE).is_file():
            return
        found = f"it has neither {WEIGHTS_FILE} nor a published {_PUBLISHED}"
    raise ValueError(
        f"checkpoint {directory} must be a folder written by `calmkit train` or `calmkit.save`, "
        f"or one in the published format; {found}.{models_below(directory)}"
    )


def _pretrained(directory: Path) -> TextTokenizer:
    if (directory / TOKENIZER_FILE).is_file():
        return find_tokenizer(str(directory))
    return cast(TextTokenizer, PretrainedTokenizer.of_folder(directory))


def tokenizer_of(directory: Path) -> TextTokenizer:
    """The tokenizer of a folder in calmkit's own format: inside the weights, or beside them.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
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
