"""A first look at a text: what its documents are held out by, and what a tokenizer learns from.

The look ends as soon as a document of either side was seen, unless a tokenizer is to be learnt;
then it goes through all of the text. The tokenizer learns from the training side alone, from the
documents that come first when they are ordered by a hash of their content: a sample that depends
on nothing but the text and the seed.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .content import content_key
from .sides import ByHash, OneSide, hash_of

__all__ = ["Sample", "rule_for_both_sides"]

_SAMPLE_CHARACTERS = 1 << 24
_OF_ONE_DOCUMENT = 1 << 20


@dataclass
class Sample:
    """Documents to learn a tokenizer from, of bounded size.

    Attributes:
        seed: Another seed takes others.
    """

    seed: int
    _chosen: list[tuple[int, int, str]] = field(default_factory=list)
    _characters: int = 0
    _seen: int = 0

    def offer(self, key: bytes, text: str) -> None:
        """Take a document in if it is among the first by its hash.

        Args:
            key: Its `content_key`.
            text: The document; of a very long one the beginning is taken.
        """
        text = text[:_OF_ONE_DOCUMENT]
        self._seen += 1
        # The last by the hash lies on top of the heap, where it is soon thrown out.
        heapq.heappush(self._chosen, (-hash_of(key, -1 - self.seed), -self._seen, text))
        self._characters += len(text)
        while self._characters - len(self._chosen[0][2]) >= _SAMPLE_CHARACTERS:
            self._characters -= len(heapq.heappop(self._chosen)[2])

    def forget(self) -> None:
        """Begin again."""
        self._chosen, self._characters = [], 0

    def texts(self) -> list[str]:
        """What was chosen, in an order that does not depend on that of the text."""
        return [text for *_, text in sorted(self._chosen, reverse=True)]


def rule_for_both_sides(
    texts: Callable[[], Iterable[str]], rule: ByHash | OneSide, sample: Sample | None
) -> ByHash | OneSide:
    """A rule under which each side has a document, as near to the given one as can be.

    Args:
        texts: Gives the documents, from the first on.
        rule: By hash; another is given back as it is.
        sample: Is offered the documents of the training side; None if none is needed.

    Raises:
        ValueError: If there are not two different documents.
    """
    keys: set[bytes] = set()  # of no more than two documents
    sides: set[str | None] = set()
    needed = {"train", "validation"} if isinstance(rule, ByHash) else {"train"}
    lowest, highest, count = 1 << 64, -1, 0
    for text in texts():
        key = content_key(text)
        count += 1
        if len(keys) < 2:
            keys.add(key)
        side = rule.side_of(key)
        sides.add(side)
        if isinstance(rule, ByHash):
            place = hash_of(key, rule.seed)
            lowest, highest = min(lowest, place), max(highest, place)
        if sample is not None and side == "train":
            sample.offer(key, text)
        if sample is None and sides >= needed:
            break
    if isinstance(rule, OneSide):
        if "train" not in sides:
            raise ValueError(
                "data must hold a document that is not held out too; "
                + ("all of it is in the validation files." if count else "it is empty.")
            )
        return rule
    if not count:
        raise ValueError("data must hold some text; it is empty.")
    if count < 2:
        raise ValueError(
            "data must hold at least 2 documents, one to train on and one to validate on; got "
            f"{count}, without a line end to cut it at."
        )
    if len(keys) < 2:
        raise ValueError(
            "data must hold at least 2 different documents, one to train on and one to validate "
            f"on; got {count} copies of one. Add other text."
        )
    if sides >= needed:
        return rule
    rule = ByHash(rule.seed, highest if "train" not in sides else lowest + 1)
    if sample is None:
        return rule
    sample.forget()
    return rule_for_both_sides(texts, rule, sample)
