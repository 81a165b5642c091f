r"""The side of a document, training or validation, as a function of its content alone.

A hash of the content and a seed is a number u in [0, 1); documents with u < fraction are held out.
Copies of a document are on the same side, and adding text moves no document. If no document of a
small text has u < fraction, the one with the lowest u is held out. If all have, the one with the
highest u is kept for training.
"""

import hashlib
from dataclasses import dataclass, field

__all__ = ["ByHash", "OneSide", "hash_of"]

_RANGE = 2**64


def hash_of(key: bytes, seed: int) -> int:
    """The number 2^64 u of a document.

    Args:
        key: Its `content_key`.
        seed: Another seed holds out other documents.
    """
    digest = hashlib.blake2b(key, digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True)
class ByHash:
    """The rule by hash.

    Attributes:
        seed: Seed of the hash.
        below: Documents with a smaller hash are held out.
    """

    seed: int
    below: int

    @classmethod
    def of_fraction(cls, fraction: float, seed: int) -> "ByHash":
        """Hold out a share of the documents, which is exact in the limit of many."""
        return cls(seed, round(fraction * _RANGE))

    def side_of(self, key: bytes) -> str | None:
        """The side of the document with this `content_key`: "train" or "validation"."""
        return "validation" if hash_of(key, self.seed) < self.below else "train"


@dataclass(frozen=True)
class OneSide:
    """Puts all documents on one side and drops the copies of given documents.

    Attributes:
        side: "train" or "validation".
        without: The `content_key` of each document to drop.
    """

    side: str
    without: frozenset[bytes] = field(default=frozenset())

    def side_of(self, key: bytes) -> str | None:
        """The side of the document with this `content_key`; None if it is dropped."""
        return None if key in self.without else self.side
