"""A text of any size in blocks; of too many, evenly spread ones stand for all."""

from collections.abc import Iterator

import numpy as np

from calmkit.data import TextMixture, TokenStore

__all__ = ["text_blocks"]

_BLOCK = 2**22


def text_blocks(
    text: TokenStore | TextMixture, most_tokens: int, *, block: int = _BLOCK
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stretches of the stream of each text, and where in them a document begins.

    Args:
        text: A text; of a mixture, each text gives up to its share of `most_tokens`.
        most_tokens: Of a longer text, about so many tokens, and at least one block.
        block: Tokens in a block.
    """
    mixture = TextMixture.of(text)
    for store, share in zip(mixture.stores.values(), mixture.shares, strict=True):
        blocks = -(-store.num_tokens // block)
        counted = min(blocks, max(1, int(share * most_tokens) // block))
        for number in range(counted):
            begin = number * blocks // counted * block
            end = min(begin + block, store.num_tokens)
            first, last = np.searchsorted(store.offsets, [begin, end])
            begins = np.zeros(end - begin, dtype=bool)
            begins[np.asarray(store.offsets[first:last]) - begin] = True
            yield store.read(begin, end).astype(np.int64), begins
