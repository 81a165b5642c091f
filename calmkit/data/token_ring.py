"""Random windows of a text, each token at most once per epoch, without a list of windows.

The stored stream is closed to a ring. An epoch cuts the ring, from a random offset, into windows
of W tokens. Fewer than W tokens are left over, and they differ from epoch to epoch. The windows
are visited in the order of a keyed permutation. Row i of the endless sequence, in epoch e = i // n
with key k, is the window that begins at

    begin = (shift(k) + W * order(k, i mod n)) mod tokens,    n = tokens // W

This takes a few integer operations and no memory, for a thousand tokens or for 10^12. A binary
search in the stored offsets finds the document boundaries in the window.
"""

from dataclasses import dataclass

import numpy as np

from calmkit.orders import permuted, words

from .store import TokenStore

__all__ = ["TokenRing", "Windows"]

_SHIFT, _ORDER, _DRAWS = range(3)  # purposes of the words of an epoch's key


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one text, cut into segments at document boundaries.

    Attributes:
        text: Token ids, (windows, W).
        counts: Number of segments of each window.
        starts: Begin of each segment within its window, window after window.
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
        key: A key from `key_of`, the only source of randomness.

    Attributes:
        windows_per_epoch: n, the number of windows in one pass over the text.
    """

    def __init__(self, store: TokenStore, window: int, key: int) -> None:
        self._store, self._window, self._key = store, window, key
        self.windows_per_epoch = store.num_tokens // window

    def windows(self, rows: np.ndarray) -> Windows:
        """The windows at the given indices of the sequence."""
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
        """Begins of the segments within each window: 0 and the document boundaries."""
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
