"""The tokenizer inside a saved model's weights: read when it is first used, written as it is."""

import functools
from collections.abc import Sequence
from pathlib import Path

from calmkit.extras import require
from calmkit.text import TextTokenizer

from .errors import SavedModelError

__all__ = ["StoredTokenizer"]


class StoredTokenizer:
    """The content of a `tokenizer.json`."""

    def __init__(self, content: str, place: str) -> None:
        """Keep the content, which is not checked yet.

        Args:
            content: The content.
            place: The file that it is from, for error messages.
        """
        self._content, self._place = content, place

    def __repr__(self) -> str:
        """The file that it is from; it is not read for this."""
        return f"{type(self).__name__}({self._place})"

    @functools.cached_property
    def _tokenizer(self) -> TextTokenizer:
        require("tokenizers", "a model's tokenizer")
        from tokenizers import Tokenizer

        try:
            return TextTokenizer(Tokenizer.from_str(self._content))
        except Exception as error:  # the library raises bare Exceptions
            raise SavedModelError(
                f"{self._place}: the tokenizer inside the weights cannot be read: {error}."
            ) from None

    @property
    def end_id(self) -> int:
        """Id of the token that ends a text."""
        return self._tokenizer.end_id

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without end tokens."""
        return self._tokenizer.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids."""
        return self._tokenizer.decode(tokens)

    def save(self, path: Path) -> None:
        """Write the file again."""
        path.write_text(self._content, encoding="utf-8")
