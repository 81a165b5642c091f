"""Equality of texts up to white space.

A copy with other line ends, indentation or line breaks has the same content. Training text and
held-out text must not share such copies.
"""

import hashlib
import re

__all__ = ["content_key"]

# A long text is split part by part, since its list of words needs ten times its memory.
_PART = 1 << 20
_SPACE = re.compile(r"\s")


def content_key(text: str) -> bytes:
    """A key that two texts share if, barring hash collisions, they have the same words in order.

    Returns:
        The 16-byte BLAKE2b digest of the words, joined by spaces.
    """
    digest = hashlib.blake2b(digest_size=16)
    begin, between = 0, ""
    while begin < len(text):
        found = _SPACE.search(text, begin + _PART)
        end = found.start() if found else len(text)
        if words := " ".join(text[begin:end].split()):
            digest.update(f"{between}{words}".encode())
            between = " "
        begin = end
    return digest.digest()
