"""Random windows of a text, each token once an epoch, without a list of documents or of windows.

The stream of a store, in the order in which it is stored, is closed to a ring. An epoch cuts the
ring from a random place on into windows of W tokens each; the less than W tokens that are left
over differ from epoch to epoch. The windows come in the order of a keyed permutation. Row i of the
endless sequence is therefore the window, of epoch e = i // n with key k,

    begin = (shift(k) + W * order(k, i mod n)) mod tokens,    n = tokens // W

which takes a few operations on integers and no memory, whether the text has a thousand tokens or
10^12. A binary search in the stored offsets finds the documents' borders in it.
"""

from dataclasses import dataclass

import numpy as np

from calmkit.orders import permuted, words

from .store import TokenStore

__all__ = ["TokenRing", "Windows"]

_SHIFT, _ORDER, _DRAWS = range(3)  # what words of an epoch's key are for


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one text, and how document borders cut them into segments.

    Attributes:
        text: Token ids, (windows, W).
        counts: How many segments each window has.
        starts: Where each segment begins in its window, window after window.
        draws: A random word for each segment.
    """

    text: np.ndarray
    counts: np.ndarray
    starts: np.ndarray
    draws: np.ndarray


class TokenRing:
    """An endless sequence of random windows of one text.

    Args:
        store: The text, at least one window long.
        window: W, tokens in a window.
        key: By `key_of`; decides everything that is random.

    Attributes:
        windows_per_epoch: n, windows that go once through the text.
    """

    def __init__(self, store: TokenStore, window: int, key: int) -> None:
        self._store, self._window, self._key = store, window, key
        self.windows_per_epoch = store.num_tokens // window

    def windows(self, rows: np.ndarray) -> Windows:
        """The windows at some places of the sequence.

        Args:
            rows: The places, from 0 on.
        """
        total, size = self._store.num_tokens, self._window
        epochs, places = np.divmod(rows, self.windows_per_epoch)
        keys = words(self._key, epochs)
        shifts = (words(keys, _SHIFT) % np.uint64(total)).astype(np.int64)
        numbers = permuted(places, self.windows_per_epoch, words(keys, _ORDER))
        begins = (shifts + numbers * size) % total
        starts = self._starts(begins)
        counts = np.array([len(of_row) for of_row in starts])
        ordinals = np.concatenate([np.arange(count) for count in counts])
        of_window = words(words(keys, _DRAWS), numbers)
        return Windows(
            text=self._text(begins),
            counts=counts,
            starts=np.concatenate(starts),
            draws=words(np.repeat(of_window, counts), ordinals),
        )

    def _text(self, begins: np.ndarray) -> np.ndarray:
        store, size = self._store, self._window
        text = np.empty((len(begins), size), dtype=np.int64)
        for row, begin in zip(text, begins.tolist(), strict=True):
            end = min(begin + size, store.num_tokens)
            row[: end - begin] = store.read(begin, end)
            if end - begin < size:
                row[end - begin :] = store.read(0, size - (end - begin))
        return text

    def _starts(self, begins: np.ndarray) -> list[np.ndarray]:
        """Where the segments of each window begin in it: at 0 and at the documents' borders."""
        offsets, total = self._store.offsets, self._store.num_tokens
        ends = begins + self._window
        first = offsets.searchsorted(begins, side="right")
        last = offsets.searchsorted(np.minimum(ends, total), side="left")
        again = offsets.searchsorted(np.maximum(ends - total, 0), side="left")  # past the seam
        starts = []
        for begin, low, high, rest in zip(
            begins.tolist(), first.tolist(), last.tolist(), again.tolist(), strict=True
        ):
            inner = [np.zeros(1, dtype=np.int64), offsets[low:high] - begin]
            if rest:
                inner.append(offsets[:rest] + (total - begin))
            starts.append(np.concatenate(inner))
        return starts
