"""The config in a model's folder: untrusted data, read without running any code that it names.

A config can name any class, and parsing it imports that class. The config of a model's folder is
therefore validated at every depth before it is parsed:

- Keys are plain names; at the top level they are known keys.
- A string is a word, a number or an allowed dotted name. Allowed are parts of calmkit, the
  optimisers of torch and loggers of Lightning Fabric listed below, and definitions of the packages
  after `--trust`. A string can therefore not be the path of another config.
- Only the keys that the command needs are read. For example, the optimiser and the output folder
  of the training do not reach a command that evaluates the model.

Two keys are paths, `data` and `evaluation_data`. `calmkit evaluate` reads these texts to restore
the held-out split, and prints their paths.

A config named by the caller, with `--config` or in `calmkit.config.build`, is trusted instead.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from calmkit.foreign_data import ForeignDataError, parse_yaml
from calmkit.manual import LOGGERS
from calmkit.saving import SavedModelError
from calmkit.saving.limits import check_numbers
from calmkit.saving.trust import check_name, find
from calmkit.schema import ConfigError, Source

from .experiment import TrainExperiment

__all__ = ["FOR_EVALUATION", "FOR_FINETUNING", "read_model_config"]

_KEYS = frozenset(entry.name for entry in fields(TrainExperiment))
# The model itself holds its autoencoder.
FOR_FINETUNING = _KEYS - {
    "output", "cache_dir", "finetune", "checkpoint", "dry_run", "autoencoder_from"
}  # fmt: skip
FOR_EVALUATION = FOR_FINETUNING - {"logger", "optimizer", "autoencoder_optimizer"}
_PATHS = frozenset(("data", "evaluation_data"))
_SEEDS = frozenset(("seed", "evaluation_seed"))

_NAMES = frozenset((
    "calmkit.training.MatrixDecayAdamW",
    *(
        f"torch.optim.{name}"
        for name in (
            "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon",
            "NAdam", "RAdam", "RMSprop", "Rprop", "SGD",
        )
    ),
    *(f"calmkit.training.{name}" for name in LOGGERS.values()),
    "lightning_fabric.loggers.CSVLogger",
    "lightning_fabric.loggers.TensorBoardLogger",
))  # fmt: skip
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_+-]*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def read_model_config(path: Path, *, keys: Collection[str], trust: Collection[str] = ()) -> Source:
    """Read and validate the config of a model's folder, so that it is safe to parse.

    Args:
        path: The file.
        keys: Keys to keep; the values of other keys are ignored.
        trust: Packages outside calmkit, or modules of them, whose classes the config may name;
            their code is imported and run.

    Raises:
        ConfigError: If a top-level key is unknown.
        SavedModelError: If the file cannot be read, or a value is not allowed in a config.
        UntrustedCodeError: If it names code that is not in `trust`; nothing was imported.
    """
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ForeignDataError) as error:
        raise SavedModelError(f"{path} must be YAML; it is damaged ({error}).") from None
    if not isinstance(values, Mapping):
        raise SavedModelError(f"{path} must hold keys and values; it is damaged.")
    for key in values:
        if key not in _KEYS:
            raise ConfigError(
                f"{key} is not a known key ({path}).", wrong=str(key), allowed=sorted(_KEYS)
            )
    kept = {key: value for key, value in values.items() if key in keys}
    try:
        _check(kept, trust)
    except SavedModelError as error:
        raise type(error)(f"{path}: {error}") from None
    return Source(str(path), kept)


def _check(values: Mapping[str, Any], trust: Collection[str]) -> None:
    for key in _PATHS & values.keys():
        if not isinstance(values[key], str | None) and not (key == "data" and _mixes(values[key])):
            raise SavedModelError(f"{key} must be the path of a text; got {values[key]!r}.")
    plain = {key: value for key, value in values.items() if key not in _PATHS}
    check_numbers({key: value for key, value in plain.items() if key not in _SEEDS})
    names = list(dict.fromkeys(_names_in(plain, "")))
    for name in names:
        check_name(name, trust, exact=_NAMES)
    for name in names:
        if name not in _NAMES:
            find(name, trust, exact=_NAMES)


def _mixes(value: object) -> bool:
    """Whether a value is a mixture of texts: plain names, each with a path and a number."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and _WORD.fullmatch(name)
        and isinstance(text, Mapping)
        and text.keys() == {"path", "weight"}
        and isinstance(text["path"], str)
        and type(text["weight"]) in (int, float)
        for name, text in value.items()
    )


def _names_in(value: object, place: str) -> Iterator[str]:
    """Every dotted name in a value.

    Raises:
        SavedModelError: If anything else in the value is not plain.
    """
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise SavedModelError(f"{place or 'a key'} must have plain names; got {key!r}.")
            yield from _names_in(entry, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for entry in value:
            yield from _names_in(entry, place)
    elif isinstance(value, str):
        if _DOTTED.fullmatch(value):
            yield value
        elif not _WORD.fullmatch(value) and not _is_number(value):
            raise SavedModelError(
                f"{place} must be a word, a number or the dotted name of a class in the config of "
                f"a model; got {value[:80]!r}. Change it in the file."
            )
    elif not isinstance(value, bool | int | float | None):
        raise SavedModelError(
            f"{place} must be a text, a number, true, false or null; got {value!r}."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
