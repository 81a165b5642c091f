r"""Token ids of long texts, in pieces: the same ids, in a bounded amount of memory.

A tokenizer takes some hundred bytes of memory for each character that it is given at once. A long
text is therefore cut between a word and the space or line end behind it, where nearly all
tokenizers begin a new token. Whether this one does is tried at each cut: the characters around it
must give the same ids in two pieces as in one. A tokenizer for which no cut passes (one that puts
a space before every text, say) is given the whole text.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

__all__ = ["encode_exactly"]

_PIECE = 1 << 16
_AROUND = 256
_TRIES = 4
# After a line first, then after a word.
_CUTS = (re.compile(r"\w(?=\n)"), re.compile(r"\w(?= )"))

_EncodeMany = Callable[[Sequence[str]], list[list[int]]]


def encode_exactly(
    texts: Sequence[str], encode_many: _EncodeMany, dtype: np.dtype
) -> list[np.ndarray]:
    """The ids of each text.

    Args:
        texts: Any texts.
        encode_many: Gives the ids of texts that are short enough.
        dtype: What holds an id.
    """
    pieces = [list(_pieces(text, encode_many)) for text in texts]
    ids = iter(_in_groups([piece for few in pieces for piece in few], encode_many, dtype))
    return [np.concatenate([next(ids) for _ in few]) for few in pieces]


def _in_groups(
    pieces: Sequence[str], encode_many: _EncodeMany, dtype: np.dtype
) -> Iterator[np.ndarray]:
    group: list[str] = []
    size = 0
    for piece in pieces:
        group.append(piece)
        size += len(piece)
        if size >= 4 * _PIECE:
            yield from (np.array(ids, dtype) for ids in encode_many(group))
            group, size = [], 0
    yield from (np.array(ids, dtype) for ids in encode_many(group))


def _pieces(text: str, encode_many: _EncodeMany) -> Iterator[str]:
    begin = 0
    for look in range(_PIECE, len(text) - _PIECE // 2, _PIECE):
        cut = _cut(text, look, encode_many)
        if cut is not None:
            yield text[begin:cut]
            begin = cut
    yield text[begin:]


def _cut(text: str, look: int, encode_many: _EncodeMany) -> int | None:
    """Where to cut behind `look`; None if there is no place within half a piece."""
    for pattern in _CUTS:
        at = look
        for _ in range(_TRIES):
            found = pattern.search(text, at, look + _PIECE // 2)
            if found is None:
                break
            at = found.end()
            left, right = text[at - _AROUND : at], text[at : at + _AROUND]
            whole, first, second = encode_many([left + right, left, right])
            if whole == first + second:
                return at
    return None
