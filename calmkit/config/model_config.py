"""The config that came with a model: data from elsewhere, read so that nothing of it runs.

A config can name any class, and to parse one is to import what it names. One that a folder brings
along is therefore looked through before anything parses it, at every depth:

- keys are plain names, and known ones at the top;
- a text is a word or a number, or else a dotted name that is allowed: of a part of calmkit, of an
  optimiser of torch or a logger of Lightning Fabric in the list below, or of what a package after
  `--trust` defines. So nothing in it can be the path of a further config either;
- of the keys only those are read that the command needs. What a model was trained by, and where it
  wrote, does not reach a command that measures it.

Two keys are paths, `data` and `evaluation_data`: `calmkit evaluate` reads that text, to hold out
what training held out, and says so.

A config that the caller names, with `--config` or in `calmkit.config.build`, is the caller's own.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from calmkit.foreign_data import ForeignDataError, parse_yaml
from calmkit.saving import SavedModelError
from calmkit.saving.limits import check_numbers
from calmkit.saving.trust import check_name, find

from .errors import ConfigError, Source
from .experiment import TrainExperiment

__all__ = ["FOR_EVALUATION", "FOR_FINETUNING", "read_model_config"]

_KEYS = frozenset(entry.name for entry in fields(TrainExperiment))
FOR_FINETUNING = _KEYS - {"output", "cache_dir", "finetune", "checkpoint"}
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
    "lightning_fabric.loggers.CSVLogger",
    "lightning_fabric.loggers.TensorBoardLogger",
))  # fmt: skip
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD = re.compile(r"[A-Za-z0-9_+-]*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


def read_model_config(path: Path, *, keys: Collection[str], trust: Collection[str] = ()) -> Source:
    """Read the config of a model's folder; what it gives can be parsed.

    Args:
        path: The file.
        keys: Those to keep; the values of others are not looked at.
        trust: Packages outside calmkit, or modules of them, whose classes it may name: their code
            is imported and run.

    Raises:
        ConfigError: If a key at the top is not known.
        SavedModelError: If the file cannot be read, or holds what no config has.
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
    """Whether a value is a mixture of texts: by plain names, a path and a number each."""
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
    """Every dotted name in a value; all else must be plain."""
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
