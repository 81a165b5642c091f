r"""A table of n-grams as a language model: what counting alone reaches.

With c the number of times that a token x follows the context h in the training text, N(h) their
sum and T(h) the number of different tokens that follow h,

    p(x | h) = (c(h, x) + T(h) p(x | h')) / (N(h) + T(h)),

where h' is h without its first token; below the empty context stands the uniform distribution. A
context that never occurred has N = T = 0 and leaves the word to h'. This is Witten-Bell smoothing:
a new token is as likely as the number of times that a new token has come in this context so far.

n-grams do not cross borders of documents. Counts are exact, except that a text is read in blocks,
which lose the n - 1 n-grams across each of their borders. Memory is bounded by `most_tokens`: of a
longer text, blocks that are spread evenly over it are counted. Texts of a mixture are counted as
they are, each up to its share of `most_tokens`.

Source: Witten and Bell, "The Zero-Frequency Problem", IEEE Transactions on Information Theory
37(4), 1991; Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling",
1999, equation 16.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calmkit.bounds import check_at_least
from calmkit.data import TextMixture, TokenStore

from .text_blocks import text_blocks

__all__ = ["NgramModel"]

_ABSENT = -1


@dataclass(frozen=True, eq=False)
class _Table:
    """Counts of the n-grams of one order, by context.

    Attributes:
        keys: n-grams as numbers in base V, sorted.
        ends: Cumulative counts, from 0 on.
        contexts: Different contexts, as numbers in base V, sorted.
        starts: Where the n-grams of each context begin; last, their number.
    """

    keys: np.ndarray
    ends: np.ndarray
    contexts: np.ndarray
    starts: np.ndarray

    @staticmethod
    def of(keys: np.ndarray, counts: np.ndarray, vocab_size: int) -> "_Table":
        contexts, starts = np.unique(keys // vocab_size, return_index=True)
        ends = np.concatenate([[0], np.cumsum(counts)])
        return _Table(keys, ends, contexts, np.append(starts, len(keys)))

    def find(self, context: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the n-grams of each context begin and end, and whether it occurred."""
        place = np.searchsorted(self.contexts, context).clip(max=len(self.contexts) - 1)
        known = self.contexts[place] == context
        return self.starts[place], self.starts[place + 1], known

    def count(self, keys: np.ndarray) -> np.ndarray:
        """How often each n-gram occurred."""
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        counts = self.ends[place + 1] - self.ends[place]
        return np.where(self.keys[place] == keys, counts, 0)


class NgramModel:
    """Witten-Bell smoothed n-grams; make one with `NgramModel.fit`.

    Attributes:
        order: n: a token depends on the n - 1 tokens before it.
        vocab_size: Number of token ids.
    """

    def __init__(self, tables: Sequence[_Table], vocab_size: int) -> None:
        """Keep the counts of 1-grams, 2-grams, ..., in this order."""
        self._tables = tuple(tables)
        self.order, self.vocab_size = len(self._tables), vocab_size

    @classmethod
    def fit(
        cls, text: TokenStore | TextMixture, *, order: int, most_tokens: int = 50_000_000
    ) -> "NgramModel":
        """Count the n-grams of a text.

        Args:
            text: The training text.
            order: n of the longest n-grams, at least 1; `vocab_size ** order` is below 2^63.
            most_tokens: Of a longer text, so many tokens are counted.

        Raises:
            ValueError: If an argument is out of range.
        """
        check_at_least(1, order=order, most_tokens=most_tokens)
        vocab_size = text.vocab_size
        if vocab_size**order >= 2**63:
            raise ValueError(
                f"vocab_size ** order must be below 2^63; got {vocab_size} ** {order}. "
                "Lower the order."
            )
        counted = [_Counts() for _ in range(order)]
        for tokens, begins in text_blocks(text, most_tokens):
            keys, whole = np.zeros_like(tokens), np.ones(len(tokens), dtype=bool)
            for n in range(1, order + 1):
                if n > 1:  # the n-gram that ends at a token has one token more to its left
                    whole = whole & np.roll(~begins, n - 2)
                    whole[: n - 1] = False
                keys = keys + np.roll(tokens, n - 1) * vocab_size ** (n - 1)
                counted[n - 1].add(keys[whole])
        # Documents may all be shorter than the longest n-grams.
        tables = [counts.table(vocab_size) for counts in counted if not counts.is_empty]
        return cls(tables, vocab_size)

    def shorter(self, order: int) -> "NgramModel":
        """The model of shorter n-grams, which shares the tables.

        Args:
            order: n of its longest n-grams, from 1 to that of this model.
        """
        return NgramModel(self._tables[:order], self.vocab_size)

    def probability(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """p(token | context), (points,).

        Args:
            context: The last tokens before each point, (points, at least 0 tokens); negative where
                there is none.
            token: (points,).
        """
        found = np.full(len(token), 1 / self.vocab_size)
        for table, key in zip(self._tables, self._context_keys(context), strict=True):
            begin, end, known = table.find(key)
            total = np.where(known, table.ends[end] - table.ends[begin], 0)
            new = np.where(known, end - begin, 0)
            seen = table.count(np.where(known, key * self.vocab_size + token, _ABSENT))
            found = np.where(known, (seen + new * found) / np.maximum(total + new, 1), found)
        return found

    def draw(self, context: np.ndarray, length: int, generator: np.random.Generator) -> np.ndarray:
        """Draw continuations, (points, length).

        Args:
            context: As in `probability`.
            length: Tokens to draw.
            generator: Makes the choices.
        """
        width = max(self.order - 1, 1)
        text = np.full((len(context), width + length), _ABSENT, dtype=np.int64)
        kept = context[:, -width:]
        text[:, width - kept.shape[1] : width] = kept
        for place in range(width, width + length):
            text[:, place] = self._draw_one(text[:, place - width : place], generator)
        return text[:, width:]

    def _draw_one(self, context: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """From the longest context down, each keeps a token with N / (N + T) or hands on."""
        drawn = generator.integers(self.vocab_size, size=len(context))
        left = np.arange(len(context))
        levels = list(zip(self._tables, self._context_keys(context), strict=True))
        for table, key in reversed(levels):
            begin, end, known = table.find(key[left])
            first, total = table.ends[begin], table.ends[end] - table.ends[begin]
            place = generator.random(len(left)) * (total + end - begin)
            takes = known & (place < total)
            # The place among the occurrences of this context says which n-gram it is.
            occurrence = first[takes] + place[takes].astype(np.int64)
            at = np.searchsorted(table.ends, occurrence, side="right") - 1
            drawn[left[takes]] = table.keys[at] % self.vocab_size
            left = left[~takes]
        return drawn

    def _context_keys(self, context: np.ndarray) -> Iterator[np.ndarray]:
        """Each context as a number, for 1-grams, 2-grams, ...; `_ABSENT` where there is none."""
        key = np.zeros(len(context), dtype=np.int64)
        yield key
        for n in range(1, self.order):
            if n > context.shape[1]:
                key = np.full_like(key, _ABSENT)
            else:
                token = context[:, -n].astype(np.int64)
                missing = (token < 0) | (key < 0)
                key = np.where(missing, _ABSENT, key + token * self.vocab_size ** (n - 1))
            yield key


class _Counts:
    """Counts of numbers that come in blocks."""

    def __init__(self) -> None:
        self._keys, self._counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)

    @property
    def is_empty(self) -> bool:
        return len(self._keys) == 0

    def add(self, keys: np.ndarray) -> None:
        new, counts = np.unique(keys, return_counts=True)
        both = np.concatenate([self._keys, new])
        order = both.argsort(kind="stable")  # two sorted runs: a merge
        both = both[order]
        weights = np.concatenate([self._counts, counts])[order]
        if len(both):
            first = np.flatnonzero(np.concatenate([[True], both[1:] != both[:-1]]))
            self._keys, self._counts = both[first], np.add.reduceat(weights, first)

    def table(self, vocab_size: int) -> _Table:
        return _Table.of(self._keys, self._counts, vocab_size)
