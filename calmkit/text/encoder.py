"""Documents to token ids, each with its side; this work runs in parallel processes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .content import content_key
from .pieces import encode_exactly
from .raw import BadInputError, RawDocument, text_of
from .sides import ByHash, OneSide

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["EncodedBatch", "EncodedSide", "Encoder", "encode_as_text"]


@dataclass(eq=False)
class EncodedSide:
    """The documents of a batch that belong to one side.

    Attributes:
        tokens: The tokens of all documents, each as end + ids + end.
        lengths: Number of tokens of each document.
        characters: Total number of characters.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    characters: int


@dataclass(eq=False)
class EncodedBatch:
    """The result of encoding a batch of documents.

    Attributes:
        sides: The kept documents, by side.
        kept: Their indices in the batch.
        copies: Number of documents dropped as copies.
        problems: Error messages of the bad documents, in order.
    """

    sides: dict[str, EncodedSide]
    kept: list[int] = field(default_factory=list)
    copies: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Encoder:
    """The settings of an encoding, as sent to worker processes.

    Attributes:
        tokenizer: Content of its `tokenizer.json`.
        end_id: The token at both ends of a document.
        dtype: Data type of an id: "<u2" or "<u4".
        field: The key or column of the text.
        rule: Decides the side.
    """

    tokenizer: str
    end_id: int
    dtype: str
    field: str
    rule: ByHash | OneSide

    def start(self) -> "Encoding":
        """Read the tokenizer."""
        from tokenizers import Tokenizer

        return Encoding(self, Tokenizer.from_str(self.tokenizer))


class Encoding:
    """An `Encoder` at work."""

    def __init__(self, encoder: Encoder, tokenizer: "Tokenizer") -> None:
        """Store a tokenizer and set it to encode spelled-out special tokens as ordinary text."""
        self._encoder, self._tokenizer = encoder, tokenizer
        self._end = np.array([encoder.end_id], np.dtype(encoder.dtype))
        tokenizer.encode_special_tokens = True

    def __call__(self, documents: Sequence[RawDocument]) -> EncodedBatch:
        """Encode a batch, without its blank documents."""
        texts: dict[str, list[str]] = {"train": [], "validation": []}
        batch = EncodedBatch({})
        for place, raw in enumerate(documents):
            try:
                text = text_of(raw, self._encoder.field)
            except BadInputError as error:
                batch.problems.append(str(error))
                continue
            if not text.strip():
                continue
            side = self._encoder.rule.side_of(content_key(text))
            if side is None:
                batch.copies += 1
            else:
                texts[side].append(text)
                batch.kept.append(place)
        batch.sides.update((side, self._encoded(few)) for side, few in texts.items() if few)
        return batch

    def _encoded(self, texts: Sequence[str]) -> EncodedSide:
        ids = encode_exactly(
            texts,
            lambda few: encode_as_text(self._tokenizer, few, self._encoder.end_id),
            np.dtype(self._encoder.dtype),
        )
        return EncodedSide(
            np.concatenate([part for one in ids for part in (self._end, one, self._end)]),
            np.array([len(one) + 2 for one in ids], np.int64),
            sum(map(len, texts)),
        )


def encode_as_text(tokenizer: "Tokenizer", texts: Sequence[str], end_id: int) -> list[list[int]]:
    """Ids of texts, without special tokens; text that spells the end token is never that token.

    Args:
        tokenizer: A tokenizer with `encode_special_tokens` set.
        texts: Any texts.
        end_id: The end token's id.
    """
    found = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    ids = [encoding.ids for encoding in found]
    end = tokenizer.id_to_token(end_id) or ""
    for place, text in enumerate(texts):
        # Some models have the end token in their ordinary vocabulary: split its spelling.
        if end in text and end_id in ids[place]:
            first, *others = text.split(end)
            parts = [first, *(part for other in others for part in (end[:1], end[1:] + other))]
            apart = tokenizer.encode_batch_fast(parts, add_special_tokens=False)
            ids[place] = [one for encoding in apart for one in encoding.ids]
    return ids
