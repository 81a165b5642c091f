"""The number of token ids, stated once: a prepared text brings its tokenizer along."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from calmkit.data import Manifest, is_prepared

from .errors import ConfigError, Source
from .values import loaded, wanted

__all__ = ["vocabulary_of_data"]


def vocabulary_of_data(layers: Sequence[Source], options: Sequence[str]) -> list[Source]:
    """What the text of a config says of `vocab_size`, where the user says nothing of it.

    A user's own `vocab_size` stands; whether it fits is told when the text is opened.

    Args:
        layers: Configs, the weakest first.
        options: As `--key=value`.

    Returns:
        A layer over the others, if there is anything in it.

    Raises:
        ConfigError: If the text's folder is damaged.
    """
    every = [*layers, Source.of_options(options)]
    if any("vocab_size" in one.values for one in every if not one.is_preset):
        return []
    data = next((one.values["data"] for one in reversed(every) if "data" in one.values), None)
    for path in _paths(loaded(data)):
        folder = Path("" if wanted(Path, path) else str(path)).expanduser()
        if is_prepared(folder):
            try:
                size = Manifest.read(folder).tokenizer.vocab_size
            except ValueError as error:
                raise ConfigError(f"data: {error}") from None
            return [Source(f"tokenizer of {folder}", {"vocab_size": size})]
    return []


def _paths(data: object) -> Iterator[object]:
    """The path of a text, or those of a mixture."""
    if not isinstance(data, Mapping):
        yield data
        return
    for text in data.values():
        if isinstance(text, Mapping):
            yield text.get("path")
