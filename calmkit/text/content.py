"""When two texts count as the same: they agree but for white space.

A copy that ends in another line end, is indented or is wrapped elsewhere teaches the same words. A
training text and a held-out text must not share it.
"""

import hashlib
import re

__all__ = ["content_key"]

# Words of a long text are taken some at a time: as a list they need ten times its memory.
_PART = 1 << 20
_SPACE = re.compile(r"\s")


def content_key(text: str) -> bytes:
    """Equal for texts of the same words in the same order, and, but for chance, for no others.

    Args:
        text: Any text.

    Returns:
        BLAKE2b, 16 bytes, of the words with a space between.
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
