r"""What a generated text shares with the training text, and how varied it is.

    known words     share of the words that occur in the training text
    known n-grams   share of the n-grams of tokens that occur in it
    distinct-n      different n-grams / all n-grams, within the generated text

A word is a run of letters, with an apostrophe inside; case does not count. A good text has nearly
all its words and a moderate share of its longer n-grams from the training text: a model with few
known words babbles, and one with only known long n-grams copies. Compare with the numbers of true
text. Of a long training text, evenly spread blocks are searched, so memory and time are bounded.

Source of distinct-n: Li et al., "A Diversity-Promoting Objective Function for Neural Conversation
Models", arXiv 1510.03055.
"""

import re
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from calmkit.data import TextMixture, TextTokenizer, TokenStore

from .text_blocks import text_blocks

__all__ = ["distinct_share", "known_ngrams", "known_words", "words_in"]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_MOST_TOKENS = 50_000_000  # for n-grams of tokens
_MOST_FOR_WORDS, _PIECE = 2**22, 2**16  # decoding is slower
# Odd, with a well mixed binary form: n-grams as numbers modulo 2^64, which hardly ever collide.
_BASE = np.uint64(0x9E3779B97F4A7C15)


def words_in(text: str, *, begins_inside: bool = False, ends_inside: bool = False) -> list[str]:
    """The words of a text, in lower case.

    Args:
        text: The text.
        begins_inside: Whether it may begin inside a word, which is then left out.
        ends_inside: The same for its end.
    """
    found = list(_WORD.finditer(text))
    if begins_inside and found and found[0].start() == 0:
        found = found[1:]
    if ends_inside and found and found[-1].end() == len(text):
        found = found[:-1]
    return [match[0].lower() for match in found]


def known_words(
    text: TokenStore | TextMixture, tokenizer: TextTokenizer, words: Collection[str]
) -> set[str]:
    """Which of the words occur in the training text.

    Args:
        text: The training text.
        tokenizer: Its tokenizer.
        words: Words in lower case.
    """
    left, found = set(words), set()
    for tokens, _ in text_blocks(text, _MOST_FOR_WORDS, block=_PIECE):
        documents = np.split(tokens, np.flatnonzero(tokens == text.end_id))
        piece = "\n".join(tokenizer.decode(one[one != text.end_id].tolist()) for one in documents)
        # A block may begin and end inside a word.
        found |= left.intersection(words_in(piece, begins_inside=True, ends_inside=True))
    return found


def known_ngrams(text: TokenStore | TextMixture, ngrams: np.ndarray) -> np.ndarray:
    """Whether each n-gram of tokens occurs in the training text, (ngrams,).

    Args:
        text: The training text.
        ngrams: Token ids, (ngrams, n).
    """
    size = ngrams.shape[1]
    keys, place = np.unique(_keys(ngrams.T), return_inverse=True)
    found = np.zeros(len(keys), dtype=bool)
    if len(keys) == 0:
        return found
    for tokens, _ in text_blocks(text, _MOST_TOKENS):
        count = len(tokens) - size + 1
        if count > 0:
            seen = _keys([tokens[shift : shift + count] for shift in range(size)])
            near = np.searchsorted(keys, seen).clip(max=len(keys) - 1)
            found[near[keys[near] == seen]] = True
    return found[place]


def distinct_share(rows: Iterable[Sequence[int]], n: int) -> float | None:
    """Distinct-n of several texts together; None if they have no n-gram.

    Args:
        rows: The tokens of each text.
        n: Length of the n-grams.
    """
    ngrams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def _keys(columns: Iterable[np.ndarray]) -> np.ndarray:
    """n-grams as numbers modulo 2^64, from their first tokens, their second tokens, ..."""
    keys: np.ndarray | None = None
    for column in columns:
        token = column.astype(np.uint64) + np.uint64(1)
        keys = token if keys is None else keys * _BASE + token
    return np.zeros(0, dtype=np.uint64) if keys is None else keys
