r"""Documents as one stream of token ids, in memory or mapped from the files of a prepared folder.

    tokens   [ end d0 d1 d2 end | end e0 e1 end | ... ]
    offsets  [ 0,                 5,              9, ... ]

Document i is `tokens[offsets[i] : offsets[i + 1]]`. Each document also starts with an end token,
so that generation can start from it. Ids take two bytes if the vocabulary allows it, otherwise
four.

The time to open a folder depends only on the number of its files: tokens and offsets are read on
demand. Therefore neither this module nor the code that cuts rows from a store may store or iterate
over something per document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from calmkit.text import TextTokenizer

from .manifest import Manifest, dtype_of_ids
from .sharded_tokens import ShardedTokens

__all__ = ["TokenStore"]

_BATCH_CHARACTERS = 10_000_000
_BLOCK_TOKENS, _MOST_BLOCKS = 2**16, 2**11
_USES = {"train": "train on", "validation": "evaluate on"}


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Tokenized documents; create with `from_documents` or `open`.

    Attributes:
        tokens: All token ids, document after document.
        offsets: The offset of each document, then the number of tokens. Offsets in memory are
            checked here; mapped ones were checked when they were written.
        vocab_size: Number of token ids.
        end_id: The token at both ends of each document.
        num_characters: Characters of text, for results per character.
    """

    tokens: np.ndarray | ShardedTokens
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
        if type(offsets) is np.ndarray and (np.diff(offsets) < 1).any():
            raise ValueError(f"offsets must increase: no document may be empty; got {offsets}.")

    @classmethod
    def open(cls, folder: Path | str, side: Literal["train", "validation"]) -> "TokenStore":
        """Map one side of a prepared folder.

        Args:
            folder: A folder written by `calmkit prepare`.
            side: The training text or the held-out text.

        Raises:
            ValueError: If the folder is not complete, a file is truncated, or the side has no
                document.
        """
        folder = Path(folder)
        manifest = Manifest.read(folder)
        facts, vocab_size = getattr(manifest, side), manifest.tokenizer.vocab_size
        if facts.documents < 1:
            raise ValueError(
                f"{folder} must hold at least one document to {_USES[side]}; it has none. "
                "Prepare it with more text."
            )
        files = [folder / file.name for file in facts.shards]
        return cls(
            tokens=ShardedTokens(files, manifest.shard_tokens, manifest.tokenizer.dtype),
            offsets=np.memmap(folder / facts.offsets.name, dtype="<i8", mode="r"),
            vocab_size=vocab_size,
            end_id=manifest.tokenizer.end_id,
            num_characters=facts.characters,
        )

    @classmethod
    def from_documents(cls, documents: Sequence[str], tokenizer: TextTokenizer) -> "TokenStore":
        """Tokenize documents, each as end + text + end.

        Raises:
            ValueError: If there is no document.
        """
        if not documents:
            raise ValueError("documents must hold at least one text; got none.")
        dtype = dtype_of_ids(tokenizer.vocab_size)
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
        """Number of tokens, end tokens included."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        """Number of documents."""
        return len(self.offsets) - 1

    def read(self, begin: int, end: int) -> np.ndarray:
        """Token ids [begin, end) of the stream, across documents and files.

        Args:
            begin: At least 0.
            end: At most `num_tokens`.
        """
        return self.tokens[begin:end]

    def document(self, index: int) -> np.ndarray:
        """The token ids of one document.

        Args:
            index: In [0, num_documents).

        Raises:
            IndexError: If there is no such document.
        """
        if not 0 <= index < self.num_documents:
            raise IndexError(f"index must be in [0, {self.num_documents}); got {index}.")
        return self.read(int(self.offsets[index]), int(self.offsets[index + 1]))

    def token_frequencies(self) -> np.ndarray:
        """The unigram model: the share of each token id.

        At most 2^27 tokens are counted, in blocks spread evenly over the text.
        """
        blocks = -(-self.num_tokens // _BLOCK_TOKENS)
        counted = min(blocks, _MOST_BLOCKS)
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for number in range(counted):
            begin = number * blocks // counted * _BLOCK_TOKENS
            tokens = self.read(begin, min(begin + _BLOCK_TOKENS, self.num_tokens))
            counts += np.bincount(tokens, minlength=self.vocab_size)
        return counts / counts.sum()


def _groups(documents: Sequence[str]) -> list[Sequence[str]]:
    """Group documents so that the ids of a group fit in memory as Python integers."""
    ends = np.cumsum([len(document) for document in documents])
    group = ends // _BATCH_CHARACTERS
    borders = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(documents)]
    return [documents[begin:end] for begin, end in pairwise(borders)]
