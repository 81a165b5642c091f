"""The default of `vocab_size`: the size of the tokenizer in a prepared folder."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from calmkit.data import Manifest, is_prepared
from calmkit.schema import ConfigError, Source, loaded, wanted

__all__ = ["vocabulary_of_data"]


def vocabulary_of_data(layers: Sequence[Source], options: Sequence[str]) -> list[Source]:
    """The `vocab_size` of a config's prepared text, unless the user sets one.

    A `vocab_size` set by the user takes precedence; it is checked when the text is opened.

    Args:
        layers: Configs in the order of merging.
        options: As `--key=value`.

    Returns:
        One layer to put over the others, or none.

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
    """The paths of a text or a mixture."""
    if not isinstance(data, Mapping):
        yield data
        return
    for text in data.values():
        if isinstance(text, Mapping):
            yield text.get("path")
