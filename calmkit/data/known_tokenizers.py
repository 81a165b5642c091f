"""Finds a tokenizer by path or name, with the end token from its own files.

| given | tokenizer |
|---|---|
| `tokenizer.json` | that file |
| a folder | the `tokenizer.json` in it |
| `owner/name` | that of a Hugging Face repository in the local cache; nothing is downloaded |

The end token and the padding token are read from `tokenizer_config.json`,
`special_tokens_map.json`, `generation_config.json` or `config.json` beside it, then from the
tokenizer itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calmkit.extras import is_installed
from calmkit.foreign_data import ForeignDataError, parse_json
from calmkit.text import TextTokenizer, read_tokenizer

from .manifest import TOKENIZER_FILE

__all__ = ["find_tokenizer"]

# In order of precedence.
_FILES_WITH_NAMES = ("tokenizer_config.json", "special_tokens_map.json")
_FILES_WITH_IDS = ("generation_config.json", "config.json")


def find_tokenizer(given: str, *, end_token: str | None = None) -> TextTokenizer:
    """Read a tokenizer.

    Args:
        given: A file, a folder or the name of a repository.
        end_token: The token that ends a text. None: the one in the files.

    Raises:
        ValueError: If there is no tokenizer, or it has no such token.
    """
    file = _file_of(given)
    end, padding = (_declared_token(file, kind) for kind in ("eos", "pad"))
    return TextTokenizer.load(file, end=end_token or end, padding=padding)


def _file_of(given: str) -> Path:
    path = Path(given)
    if path.is_dir():
        path = path / TOKENIZER_FILE
    if path.is_file():
        return path
    cached = _cached(given)
    if cached is None:
        raise ValueError(
            f"tokenizer must be a {TOKENIZER_FILE}, a folder with one, a Hugging Face repository "
            f"in the local cache, or train:SIZE; {given!r} is none of them. Fetch the "
            "files of a repository first, without its weights: "
            "hf download OWNER/NAME --include '*.json'"
        )
    return cached


def _cached(repository: str) -> Path | None:
    """The cached file of a repository, if there is one."""
    if not is_installed("huggingface_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, TOKENIZER_FILE)
    except HFValidationError:  # not a name that a repository can have
        return None
    return Path(found) if isinstance(found, str) else None


def _declared_token(file: Path, kind: str) -> str | None:
    """The token of a kind according to the files beside the tokenizer; None if not found."""
    for content in _contents(file.parent, _FILES_WITH_NAMES):
        token = content.get(f"{kind}_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    for content in _contents(file.parent, _FILES_WITH_IDS):
        number = content.get(f"{kind}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int) and number >= 0:
            return read_tokenizer(file).id_to_token(number)
    return None


def _contents(folder: Path, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for name in names:
        try:
            content = parse_json((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except ForeignDataError as error:
            raise ValueError(f"{folder / name} cannot be read: {error}") from None
        if isinstance(content, dict):
            yield content
