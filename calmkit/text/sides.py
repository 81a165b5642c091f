r"""Which side a document stands on, by its content alone.

By hash: the content and a seed give a number u in [0, 1), and what has u < fraction is held out.
Copies of a document stand on its side, and text that is added later moves no document. If no
document of a small text has such a number, the one with the lowest is held out; if all have, the
one with the highest is not.
"""

import hashlib
from dataclasses import dataclass, field

__all__ = ["ByHash", "OneSide", "hash_of"]

_RANGE = 2**64


def hash_of(key: bytes, seed: int) -> int:
    """2^64 u of a document.

    Args:
        key: Its `content_key`.
        seed: Another seed holds other documents out.
    """
    digest = hashlib.blake2b(key, digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True)
class ByHash:
    """The rule above.

    Attributes:
        seed: Chooses what is held out.
        below: Documents with a hash below it are held out.
    """

    seed: int
    below: int

    @classmethod
    def of_fraction(cls, fraction: float, seed: int) -> "ByHash":
        """Hold out a share of the documents, in the limit of many."""
        return cls(seed, round(fraction * _RANGE))

    def side_of(self, key: bytes) -> str | None:
        """Where the document with this `content_key` stands: "train" or "validation"."""
        return "validation" if hash_of(key, self.seed) < self.below else "train"


@dataclass(frozen=True)
class OneSide:
    """All documents on one side, but for the copies of some, which are left out.

    Attributes:
        side: "train" or "validation".
        without: `content_key` of documents to leave out.
    """

    side: str
    without: frozenset[bytes] = field(default=frozenset())

    def side_of(self, key: bytes) -> str | None:
        """Where the document with this `content_key` stands; None if it is left out."""
        return None if key in self.without else self.side
