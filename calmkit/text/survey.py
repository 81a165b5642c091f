"""A first pass over a text: fixes the split rule, and samples text for training a tokenizer.

Without a tokenizer to train, the pass stops as soon as both sides have a document; otherwise it
reads the whole text. The tokenizer is trained on training documents only: those with the lowest
hashes of their content. The sample thus depends only on the text and the seed.
"""

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .content import content_key
from .sides import ByHash, OneSide, hash_of

__all__ = ["Sample", "rule_for_both_sides"]

_SAMPLE_CHARACTERS = 1 << 24
_DOCUMENT_CHARACTERS = 1 << 20


@dataclass
class Sample:
    """A sample of documents, of bounded size, for training a tokenizer.

    Attributes:
        seed: Another seed selects other documents.
    """

    seed: int
    _chosen: list[tuple[int, int, str]] = field(default_factory=list)
    _characters: int = 0
    _seen: int = 0

    def offer(self, key: bytes, text: str) -> None:
        """Add a document if its hash is among the lowest.

        Args:
            key: Its `content_key`.
            text: The document; a very long one is truncated.
        """
        text = text[:_DOCUMENT_CHARACTERS]
        self._seen += 1
        # The highest hash is at the top of the heap and is dropped first.
        heapq.heappush(self._chosen, (-hash_of(key, -1 - self.seed), -self._seen, text))
        self._characters += len(text)
        while self._characters - len(self._chosen[0][2]) >= _SAMPLE_CHARACTERS:
            self._characters -= len(heapq.heappop(self._chosen)[2])

    def forget(self) -> None:
        """Empty the sample."""
        self._chosen, self._characters = [], 0

    def texts(self) -> list[str]:
        """The selected documents, in an order independent of the order in the text."""
        return [text for *_, text in sorted(self._chosen, reverse=True)]


def rule_for_both_sides(
    texts: Callable[[], Iterable[str]],
    rule: ByHash | OneSide,
    sample: Sample | None,
    *,
    name: str,
) -> ByHash | OneSide:
    """The closest rule to the given one under which each side has a document.

    Args:
        texts: Returns the documents, from the first.
        rule: A rule by hash; another rule is returned unchanged.
        sample: Receives the documents of the training side; None if no sample is needed.
        name: Of the text, for messages.

    Raises:
        ValueError: If there are not two different documents.
    """
    keys: set[bytes] = set()  # of at most two documents
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
    if not count:
        raise ValueError(f"data must hold some text; {name} is empty.")
    if isinstance(rule, OneSide):
        if "train" not in sides:
            raise ValueError(
                f"data must hold a document that is not held out too; all of {name} is in the "
                "validation files."
            )
        return rule
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
    return rule_for_both_sides(texts, rule, sample, name=name)
