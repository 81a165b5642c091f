"""The keys that each query may attend to; `AttentionMask.dense` is the definition.

Queries are always the *last* positions of the keys (bottom-right alignment): query i of `q_len`
is at key position `i + kv_len - q_len`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["AttentionMask"]


@typed
@dataclass(frozen=True, eq=False)
class AttentionMask:
    """A kind of attention; build one with `full`, `causal`, `packed` or `cached`.

    Attributes:
        is_causal: Whether later keys are hidden from a query.
        window: Largest number of keys that a query sees, including its own; None for all.
        lengths: For each row, the lengths of the packed documents; None for one document.
        key_lengths: For each row, the number of keys in use; None for all.
        documents: Index of the document at each position of a packed row, from `lengths`.
        places: Each position's index within its document, from `lengths`.
        starts: Where each document starts if all rows are laid end to end, and where the last one
            ends, from `lengths`; int32, as kernels read it.
    """

    is_causal: bool = True
    window: int | None = None
    lengths: tuple[tuple[int, ...], ...] | None = None
    key_lengths: Int[Tensor, " batch"] | None = None
    # Tensors, so that one compiled model works for every packing: the lengths themselves would
    # be constants of its graph.
    documents: Int[Tensor, "batch positions"] | None = field(init=False, repr=False, default=None)
    places: Int[Tensor, "batch positions"] | None = field(init=False, repr=False, default=None)
    starts: Int[Tensor, " borders"] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Refuse combinations without a meaning, however the mask was made."""
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"window must be at least 1, or None for no limit; got {self.window}."
            )
        if self.window is not None and not self.is_causal:
            raise ValueError("window needs a causal mask: it counts back from each query.")
        if self.key_lengths is not None and (self.lengths is not None or not self.is_causal):
            raise ValueError("key_lengths needs a causal mask without packed documents.")
        if self.lengths is not None:
            _check_documents(self.lengths)
            lengths = np.array([n for row in self.lengths for n in row])
            index = [d for row in self.lengths for d in range(len(row))]
            starts = np.concatenate([[0], lengths.cumsum()])
            shape = len(self.lengths), -1
            documents = np.repeat(index, lengths).reshape(shape)
            places = (np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)).reshape(shape)
            object.__setattr__(self, "documents", torch.tensor(documents))
            object.__setattr__(self, "places", torch.tensor(places))
            object.__setattr__(self, "starts", torch.tensor(starts, dtype=torch.int32))

    @classmethod
    def full(cls) -> "AttentionMask":
        """Every query sees every key."""
        return cls(is_causal=False)

    @classmethod
    def causal(cls, window: int | None = None) -> "AttentionMask":
        """A query sees itself and earlier keys, at most `window` of them.

        Raises:
            ValueError: If the window is not positive.
        """
        return cls(window=window)

    @classmethod
    def packed(
        cls, lengths: Sequence[Sequence[int]], window: int | None = None
    ) -> "AttentionMask":
        """Causal within each document of a row, and no attention across documents.

        Args:
            lengths: For each row, the lengths of its documents, in order.
            window: As in `causal`.

        Raises:
            ValueError: If there is no row, an empty document, or the rows differ in length.
        """
        return cls(window=window, lengths=tuple(tuple(row) for row in lengths))

    @classmethod
    def cached(
        cls, key_lengths: Int[Tensor, " batch"], window: int | None = None
    ) -> "AttentionMask":
        """Causal over a padded cache: row b uses the first `key_lengths[b]` keys.

        Its queries are the last of those keys, so there are at most as many queries.

        Args:
            key_lengths: Number of keys in use in each row, including those of the queries.
            window: As in `causal`.
        """
        return cls(window=window, key_lengths=key_lengths)

    def to(self, device: torch.device) -> "AttentionMask":
        """The same mask with its tensors on a device: copied once, not in each layer."""
        if torch.compiler.is_compiling():  # a graph moves those that it uses, each where it does
            return self
        names = ("key_lengths", "documents", "places", "starts")
        tensors = {name: x for name in names if (x := getattr(self, name)) is not None}
        if all(x.device == device for x in tensors.values()):
            return self
        moved = copy.copy(self)
        for name, x in tensors.items():
            object.__setattr__(moved, name, x.to(device))
        return moved

    @typed
    def positions(self, length: int, device: torch.device) -> Int[Tensor, "#batch length"]:
        """Position of each query within its own document, for positional embeddings.

        Raises:
            ValueError: If the documents do not add up to `length`.
        """
        if self.key_lengths is not None:
            start = self.key_lengths[:, None] - length
            return start + torch.arange(length, device=device)
        if self.places is None:
            return torch.arange(length, device=device)[None]
        self.check_length(length)
        return self.places.to(device)

    @typed
    def dense(
        self, q_len: int, kv_len: int, device: torch.device
    ) -> Bool[Tensor, "#batch q_len kv_len"]:
        """The mask itself: True where a query may attend to a key.

        Raises:
            ValueError: If the documents do not add up to `kv_len`.
        """
        keys = torch.arange(kv_len, device=device)
        queries = torch.arange(q_len, device=device)
        if self.key_lengths is None:
            queries = (queries + kv_len - q_len)[None, :, None]
        else:
            queries = (queries + (self.key_lengths[:, None] - q_len))[:, :, None]
        visible = torch.ones(1, q_len, kv_len, dtype=torch.bool, device=device)
        if self.is_causal:
            visible = visible & (keys <= queries)
        if self.window is not None:
            visible = visible & (keys > queries - self.window)
        if self.documents is not None:
            self.check_length(kv_len)
            document = self.documents.to(device)
            visible = visible & (document[:, kv_len - q_len :, None] == document[:, None])
        return visible

    @property
    def rows(self) -> int | None:
        """Number of rows the mask is made for; None if it fits any number."""
        if self.key_lengths is not None:
            return self.key_lengths.shape[0]
        return None if self.documents is None else self.documents.shape[0]

    @property
    def is_plain(self) -> bool:
        """Whether it is only full or causal: no window, no documents, no padded keys."""
        return self.window is None and self.documents is None and self.key_lengths is None

    def check_length(self, positions: int) -> None:
        """Refuse a number of positions that does not match the documents or the keys in use.

        Raises:
            ValueError: If the documents do not add up to `positions`, or a row uses more keys.
                The latter is checked only on the CPU: elsewhere it would synchronise the device.
        """
        if self.documents is not None and self.documents.shape[1] != positions:
            raise ValueError(
                f"lengths of packed documents must add up to {positions} positions; "
                f"they add up to {self.documents.shape[1]}."
            )
        used = self.key_lengths
        if used is None or used.device.type != "cpu" or torch.compiler.is_compiling():
            return
        if bool(((used < 0) | (used > positions)).any()):
            raise ValueError(
                f"key_lengths must be from 0 to the {positions} keys there are; "
                f"got {used.tolist()}."
            )


def _check_documents(rows: tuple[tuple[int, ...], ...]) -> None:
    if not rows:
        raise ValueError("lengths must have one entry for each row; got none.")
    for index, row in enumerate(rows):
        if min(row, default=0) < 1:
            raise ValueError(f"lengths must be positive; row {index} has {row}.")
        if sum(row) != sum(rows[0]):
            raise ValueError(
                f"lengths must add up to the same number of positions in every row; "
                f"row 0 has {sum(rows[0])}, row {index} has {sum(row)}."
            )
