r"""Documents as one flat array of token ids, in memory or mapped from a file.

    tokens   [ end d0 d1 d2 end | end e0 e1 end | ... ]
    offsets  [ 0,                 5,              9, ... ]

Document i is `tokens[offsets[i] : offsets[i + 1]]`. Each begins with an end token too, so that
generation may start from it. Ids take two bytes while the vocabulary allows it, else four.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from .tokenizer import TextTokenizer

__all__ = ["TokenStore"]

_BATCH_CHARACTERS = 10_000_000


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Tokenized documents; make one with `from_documents` or `load`.

    Attributes:
        tokens: All token ids, document after document.
        offsets: Where each document begins, and last the number of tokens.
        vocab_size: Number of token ids.
        end_id: The token on both ends of each document.
        num_characters: Characters of text, for results per character.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    vocab_size: int
    end_id: int
    num_characters: int

    def __post_init__(self) -> None:
        """Refuse offsets that do not divide the tokens into documents."""
        offsets = self.offsets
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(self.tokens):
            raise ValueError(
                f"offsets must go from 0 to the {len(self.tokens)} tokens, with at least one "
                f"document; got {offsets}."
            )
        if (np.diff(offsets) < 1).any():
            raise ValueError(f"offsets must increase: no document may be empty; got {offsets}.")

    @classmethod
    def from_documents(cls, documents: Sequence[str], tokenizer: TextTokenizer) -> "TokenStore":
        """Tokenize documents, each as end + text + end.

        Args:
            documents: At least one text.
            tokenizer: Gives the ids.

        Raises:
            ValueError: If there is no document.
        """
        if not documents:
            raise ValueError("documents must hold at least one text; got none.")
        dtype = _dtype(tokenizer.vocab_size)
        end = [tokenizer.end_id]
        arrays = [
            np.array(end + ids + end, dtype=dtype)
            for group in _groups(documents)
            for ids in tokenizer.encode_many(group)
        ]
        return cls(
            tokens=np.concatenate(arrays),
            offsets=np.cumsum([0, *map(len, arrays)], dtype=np.int64),
            vocab_size=tokenizer.vocab_size,
            end_id=tokenizer.end_id,
            num_characters=sum(map(len, documents)),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of all documents, end tokens included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    @property
    def documents(self) -> list[np.ndarray]:
        """The token ids of every document, as views of `tokens`."""
        return [self.document(index) for index in range(self.num_documents)]

    def document(self, index: int) -> np.ndarray:
        """The token ids of one document, as a view of `tokens`.

        Args:
            index: In [0, num_documents).

        Raises:
            IndexError: If there is no such document.
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"index must be in [0, {self.num_documents}); got {index}.")
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def token_counts(self) -> np.ndarray:
        """How often each token id occurs: the unigram model, times `num_tokens`."""
        return np.bincount(self.tokens, minlength=self.vocab_size)

    def save(self, folder: Path) -> None:
        """Write `tokens.bin`, `offsets.bin` (little-endian) and `store.json` into a new folder.

        Args:
            folder: Made here; must not exist.
        """
        folder.mkdir()
        self.tokens.astype(_dtype(self.vocab_size)).tofile(folder / "tokens.bin")
        self.offsets.astype("<i8").tofile(folder / "offsets.bin")
        facts = {
            "vocab_size": self.vocab_size,
            "end_id": self.end_id,
            "num_characters": self.num_characters,
        }
        (folder / "store.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TokenStore":
        """Map what `save` wrote; tokens are read from the file when they are needed.

        Args:
            folder: The folder given to `save`.

        Raises:
            ValueError: If a file is missing or they do not fit together.
        """
        try:
            facts = json.loads((folder / "store.json").read_text(encoding="utf-8"))
            dtype = _dtype(facts["vocab_size"])
            tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r")
            offsets = np.fromfile(folder / "offsets.bin", dtype="<i8")
            return cls(tokens=tokens, offsets=offsets, **facts)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"folder must hold a store written by TokenStore.save; {str(folder)!r} cannot be "
                f"read: {error}"
            ) from error


def _dtype(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def _groups(documents: Sequence[str]) -> list[Sequence[str]]:
    """Runs of documents small enough that their ids as Python integers fit in memory."""
    ends = np.cumsum([len(document) for document in documents])
    group = ends // _BATCH_CHARACTERS
    borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(documents)]
    return [documents[begin:end] for begin, end in pairwise(borders)]
