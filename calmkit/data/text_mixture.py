"""Several texts in the tokens of one tokenizer, each with a share of the rows.

A share is one of rows, not of documents or of what a text has: a small text with a large share is
gone through more often. Held-out text is mixed likewise, so that a model is measured on what it
was trained on: of any number of rows, each text has its share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .store import TokenStore

__all__ = ["TextMixture"]


@dataclass(frozen=True, eq=False)
class TextMixture:
    """Several texts; `TextMixture.of` makes one of a single text too.

    Attributes:
        stores: The texts, by name, all with the ids of one tokenizer.
        shares: Of the rows, in the order of the texts; they add up to 1.
    """

    stores: Mapping[str, TokenStore]
    shares: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        """Refuse shares that do not fit, and texts of different tokenizers."""
        if len(self.shares) != len(self.stores) or sum(self.shares) != 1 or min(self.shares) <= 0:
            raise ValueError(
                f"shares must be above 0, one for each of {len(self.stores)} texts, and add up to "
                f"1; got {', '.join(map(str, self.shares))}. `shares_of` makes them of weights."
            )
        kinds = {(store.vocab_size, store.end_id) for store in self.stores.values()}
        if len(kinds) > 1:
            raise ValueError(
                "stores must have the ids of one tokenizer; their (vocab_size, end_id) are "
                f"{', '.join(map(str, sorted(kinds)))}."
            )

    @classmethod
    def of(cls, text: "TokenStore | TextMixture") -> "TextMixture":
        """A text as a mixture: itself, or of one text."""
        return text if isinstance(text, TextMixture) else cls({"": text}, (Fraction(1),))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self._first.vocab_size

    @property
    def end_id(self) -> int:
        """The token on both ends of each document."""
        return self._first.end_id

    @property
    def num_documents(self) -> int:
        """Of all texts."""
        return sum(store.num_documents for store in self.stores.values())

    @property
    def num_tokens(self) -> int:
        """Of all texts, end tokens included."""
        return sum(store.num_tokens for store in self.stores.values())

    def document(self, index: int) -> np.ndarray:
        """The token ids of one document, counted through the texts in their order.

        Args:
            index: In [0, num_documents).

        Raises:
            IndexError: If there is no such document.
        """
        left = index
        for store in self.stores.values():
            if 0 <= left < store.num_documents:
                return store.document(left)
            left -= store.num_documents
        raise IndexError(f"index must be in [0, {self.num_documents}); got {index}.")

    def token_frequencies(self) -> np.ndarray:
        """The unigram model of the rows: the mean of those of the texts, by their shares."""
        return sum(
            (
                float(share) * store.token_frequencies()
                for share, store in zip(self.shares, self.stores.values(), strict=True)
            ),
            start=np.zeros(self.vocab_size),
        )

    @property
    def _first(self) -> TokenStore:
        return next(iter(self.stores.values()))
