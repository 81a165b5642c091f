"""Tokenizers of other models, by `transformers` (extra `hf`), with the interface of calmkit's own.

Only files of the folder are read. Code in it is never run, and nothing is downloaded.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["TOKENIZER_FILES", "PretrainedTokenizer"]

# The files of a tokenizer in a folder of transformers.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
    "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip


class PretrainedTokenizer:
    """Text to token ids and back.

    Attributes:
        vocab_size: Number of token ids.
        end_id: Id of the token that ends a text.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer of `transformers`.

        Raises:
            ValueError: If it has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "tokenizer must have an end token (eos_token in tokenizer_config.json); it has "
                "none."
            )
        self._tokenizer = tokenizer
        self.vocab_size: int = len(tokenizer)
        self.end_id: int = tokenizer.eos_token_id

    @classmethod
    def of_folder(cls, directory: str | os.PathLike[str]) -> "PretrainedTokenizer":
        """Read the tokenizer of a folder.

        Raises:
            ValueError: If there is none, or it cannot be read.
        """
        folder = Path(directory)
        names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
        if not names:
            raise ValueError(
                f"{folder} must hold a tokenizer beside the model; it has none. Copy the files "
                "of the tokenizer that the model was trained with: tokenizer.json and "
                "tokenizer_config.json."
            )
        try:
            from transformers import AutoTokenizer  # slow to import
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{folder}: its tokenizer is read with transformers, which is not installed. "
                "Install it with pip install 'calmkit[hf]'."
            ) from error
        try:
            # Copied without the model's config, which transformers would read and may not know.
            with tempfile.TemporaryDirectory() as copy:
                for name in names:
                    shutil.copyfile(folder / name, Path(copy) / name)
                found = AutoTokenizer.from_pretrained(
                    copy, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:  # readers of tokenizers can raise anything
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{folder}: its tokenizer cannot be read: {first}") from error
        return cls(found)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [self.encode(text) for text in texts]

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out.

        Args:
            tokens: Ids in [0, vocab_size).
        """
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)
