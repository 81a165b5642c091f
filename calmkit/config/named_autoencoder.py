"""A trained autoencoder in place of a new one: `--autoencoder FOLDER`, or the same in a file.

`autoencoder` takes a class, the folder of a saved model, or a model of the Hugging Face hub,
`owner/name`. A folder becomes the key `autoencoder_from`, and the saved description becomes the
values of `autoencoder` and of the sizes. The effective config therefore still describes the whole
model, and it can be evaluated and fine-tuned without that folder.
"""

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from calmkit.saving import WEIGHTS_FILE, SavedAutoencoder, UntrustedCodeError, folder_of
from calmkit.schema import ConfigError, Source, loaded, shown, wanted

__all__ = ["with_named_autoencoder"]

_KEY, _FROM = "autoencoder", "autoencoder_from"


class _Named(NamedTuple):
    """A folder, and the key that names it."""

    key: str
    folder: Path


def with_named_autoencoder(
    layers: Sequence[Source], options: Sequence[str], trust: Collection[str] = ()
) -> tuple[list[Source], list[str]]:
    """Replace the folder of an autoencoder by what it holds.

    Args:
        layers: Configs in the order of merging.
        options: Options that override them, as `--key=value`.
        trust: Packages outside calmkit that may define the autoencoder's class.

    Returns:
        The same without a folder in `autoencoder`, and with one layer more over the others if a
        folder is named last. A class that is named after a folder replaces it.

    Raises:
        ConfigError: If the folder holds no autoencoder, or a size or an argument that the user
            sets is not that of the autoencoder.
        UntrustedCodeError: If the autoencoder is of a class that is not in `trust`.
    """
    named, given, kept_layers, kept_options = None, False, [], []
    for layer in layers:
        values = dict(layer.values)
        before, named = named, _named_in(values, named, f" ({layer.name})")
        given |= named is not before
        kept_layers.append(dataclasses.replace(layer, values=values))
    arguments = ""
    for option in options:
        name, equals, text = option.partition("=")
        key = name.removeprefix("--")
        values = {key: loaded(text)} if equals else {}
        before, named = named, _named_in(values, named, " (command line)")
        given |= named is not before
        if key.startswith(f"{_KEY}.") and not key.endswith(".help"):
            arguments = name
        if values or not equals:
            kept_options.append(option)
    if not given:
        return kept_layers, kept_options
    if named is None or _is_token_lm([*kept_layers, Source.of_options(kept_options)]):
        return [*kept_layers, Source("defaults", {_FROM: None})], kept_options
    if arguments:
        raise ConfigError(
            f"{arguments} must be left out: the autoencoder in {named.folder} has arguments of "
            "its own."
        )
    layer = _layer_of(named, trust)
    _check_sizes([*kept_layers, Source.of_options(kept_options)], layer.values, named.folder)
    return [*kept_layers, layer], kept_options


def _named_in(values: dict[str, Any], named: _Named | None, where: str) -> _Named | None:
    """The folder that is named after these values, which it is removed from.

    Args:
        values: Values of one source; a folder is taken out of them.
        named: The folder named before.
        where: The source, for error messages.
    """
    value, key = values.get(_KEY), _FROM
    if isinstance(value, str) and _is_folder(value):
        values[_FROM], key = values.pop(_KEY), _KEY
    elif isinstance(value, Mapping) and "class_path" not in value and named is not None:
        raise ConfigError(
            f"{_KEY} must name a class to replace the autoencoder in {named.folder}, whose "
            f"arguments cannot be changed; got {shown(dict(value))}{where}."
        )
    elif value is not None:
        named = None
    if _FROM not in values:
        return named
    if expected := wanted(Path | None, values[_FROM]):
        raise ConfigError(f"{key} must be {expected}; got {shown(values[_FROM])}{where}.")
    folder = values.pop(_FROM)
    return None if folder is None else _Named(key, Path(folder).expanduser())


def _is_folder(value: str) -> bool:
    """Whether a value is a path rather than the name of a class."""
    if os.sep in value or "/" in value:
        return True
    return not wanted(Path, value) and (Path(value).expanduser() / WEIGHTS_FILE).is_file()


def _is_token_lm(sources: Sequence[Source]) -> bool:
    kinds = [one.values["model"] for one in sources if "model" in one.values]
    return bool(kinds) and kinds[-1] == "token_lm"


def _layer_of(named: _Named, trust: Collection[str]) -> Source:
    """The values that the saved autoencoder determines."""
    try:
        folder = folder_of(named.folder).absolute()
        saved = SavedAutoencoder.of_folder(folder, trust=trust)
    except UntrustedCodeError:
        raise
    except ValueError as error:
        raise ConfigError(f"{named.key}: {error}") from None
    arguments = {name: _plain(value, name) for name, value in saved.arguments.items()}
    part = {"class_path": saved.class_path, "init_args": arguments}
    values = {**saved.sizes, _KEY: part, _FROM: str(folder)}
    return Source(f"autoencoder of {folder}", values)


def _plain(value: Any, name: str) -> Any:
    """An argument of a description, as it stands in a config."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list(entries) | {"tuple": list(entries)}:
            return [_plain(entry, name) for entry in entries]
        case {"name": str(path)}:
            return path
        case {"class_path": str(path), "init_args": dict(arguments)}:
            inside = {key: _plain(entry, name) for key, entry in arguments.items()}
            return {"class_path": path, "init_args": inside}
    raise ConfigError(
        f"{_KEY} must have arguments that a config can state; its {name} is {shown(value)}."
    )


def _check_sizes(sources: Sequence[Source], values: Mapping[str, Any], folder: Path) -> None:
    """Refuse other sizes that the user sets; those of presets give way."""
    for source in sources:
        for key in ("chunk_size", "vocab_size", "latent_size"):
            if source.is_preset or key not in source.values:
                continue
            if loaded(source.values[key]) != values[key]:
                raise ConfigError(
                    f"{key} must be {values[key]}, that of the autoencoder in {folder}; got "
                    f"{shown(loaded(source.values[key]))}. Leave it out."
                )
