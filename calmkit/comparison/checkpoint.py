"""A trained model as a folder that loads anywhere.

    DIRECTORY/config.yaml         the effective config, which builds the model
              model.safetensors   weights and buffers
              tokenizer.json      the tokenizer it was trained with

Nothing is unpickled. The config names classes, and loading imports their modules: treat a
folder from others like code from others.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from calmkit.config import build
from calmkit.data import TextTokenizer
from calmkit.models import CALM

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_CONFIG, _MODEL, _TOKENIZER = "config.yaml", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model that was loaded.

    Attributes:
        model: In evaluation mode, on the CPU.
        tokenizer: Its tokenizer.
        config: Path of the config it was trained with.
    """

    model: CALM
    tokenizer: TextTokenizer
    config: Path


def save_checkpoint(
    directory: Path, *, model: CALM, tokenizer: TextTokenizer, config_text: str
) -> None:
    """Write a model; each file replaces an older one in a single step, the weights last.

    Args:
        directory: Made if missing.
        model: As built from the config by `calmkit.config.assemble`.
        tokenizer: Its tokenizer.
        config_text: The effective config.
    """
    from safetensors.torch import save_model

    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / ".partial"
    partial.write_text(config_text, encoding="utf-8")
    os.replace(partial, directory / _CONFIG)
    tokenizer.save(partial)
    os.replace(partial, directory / _TOKENIZER)
    save_model(model, str(partial))
    os.replace(partial, directory / _MODEL)


def load_checkpoint(directory: Path) -> Checkpoint:
    """Build the model of a folder and load its weights.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the config.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    for name in (_CONFIG, _TOKENIZER, _MODEL):
        if not (directory / name).is_file():
            raise ValueError(
                f"checkpoint {directory} must be a folder written by `calmkit train`; it has no "
                f"{name}."
            )
    model = build(directory / _CONFIG)
    try:
        load_model(model, directory / _MODEL)
    except (RuntimeError, SafetensorError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"checkpoint {directory}: {_MODEL} is damaged or belongs to another config. {first}"
        ) from None
    tokenizer = TextTokenizer.load(directory / _TOKENIZER)
    return Checkpoint(model.eval(), tokenizer, directory / _CONFIG)
