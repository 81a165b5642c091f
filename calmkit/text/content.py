"""When two texts count as the same: they agree but for white space.

A copy that ends in another line end, is indented or is wrapped elsewhere teaches the same words. A
training text and a held-out text must not share it.
"""

import hashlib

__all__ = ["content_key"]


def content_key(text: str) -> bytes:
    """Equal for texts of the same words in the same order, and, but for chance, for no others.

    Args:
        text: Any text.
    """
    return hashlib.blake2b(" ".join(text.split()).encode(), digest_size=16).digest()
