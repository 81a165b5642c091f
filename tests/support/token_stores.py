"""Stores whose token ids are places in the text, and stores too large to be there."""

import numpy as np
import torch

from calmkit.data import TokenStore

__all__ = ["END", "documents_of", "equal", "huge_store", "make_store"]

END = 10_000  # written on padding and fill only, so that these can be told from text


def make_store(sizes, first=0):
    """Documents of so many tokens, with ids first, first + 1, ..."""
    offsets = np.cumsum([0, *sizes])
    tokens = np.arange(first, first + offsets[-1])
    return TokenStore(tokens, offsets, END + 1, END, num_characters=0)


class PlaceTokens:
    """A stream of so many tokens whose ids are their places modulo 2^16."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, place):
        begin, end, _ = place.indices(self.length)
        return (np.arange(begin, end) % 2**16).astype(np.uint16)


class EvenOffsets:
    """Offsets of documents of one size: read like an array, and never made one."""

    def __init__(self, documents, size):
        self.documents, self.size = documents, size

    def __len__(self):
        return self.documents + 1

    def __getitem__(self, place):
        if isinstance(place, slice):
            place = np.arange(*place.indices(len(self)))
        elif isinstance(place, int) and place < 0:
            place += len(self)
        return place * self.size

    def searchsorted(self, values, side="left"):
        values = np.asarray(values)
        return values // self.size + 1 if side == "right" else -(-values // self.size)

    def __array__(self, *_, **__):
        raise AssertionError("offsets of all documents must not be read at once")


def documents_of(store):
    """The token ids of every document."""
    return [store.document(index) for index in range(store.num_documents)]


def huge_store(documents, size):
    """A store of documents that are computed where they are read."""
    offsets = EvenOffsets(documents, size)
    return TokenStore(PlaceTokens(documents * size), offsets, 2**16, 0, num_characters=0)


def equal(first, second):
    """Whether two batches are the same."""
    return (
        torch.equal(first.tokens, second.tokens)
        and torch.equal(first.real, second.real)
        and first.lengths == second.lengths
    )
