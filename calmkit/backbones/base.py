"""The contract of a backbone, which any causal sequence model can meet."""

import abc
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from calmkit.attention import AttentionMask
from calmkit.bounds import check_at_least
from calmkit.recording import Recorded

__all__ = ["Backbone", "Cache"]

C = TypeVar("C")


@runtime_checkable
class Cache(Protocol):
    """A backbone's memory of the positions it has seen, row by row."""

    lengths: Int[Tensor, " batch"]

    def select(
        self: C,
        rows: Int[Tensor, " chosen"],
        lengths: Int[Tensor, " chosen"],
        *,
        out: C | None = None,
    ) -> C:
        """Copy rows, each cut to its first `lengths` positions, into `out` if given."""
        ...


class Backbone(nn.Module, Recorded, abc.ABC):
    """Maps the vectors of a row to hidden states; state t depends only on vectors 0..t.

    Attributes:
        hidden_size: Features of input vectors and hidden states.
        max_positions: Largest number of positions of a document; None if unlimited.
    """

    extra_repr = Recorded.extra_repr

    max_positions: int | None = None

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        check_at_least(1, hidden_size=hidden_size)
        self.hidden_size = hidden_size

    @abc.abstractmethod
    def forward(
        self,
        vectors: Float[Tensor, "batch positions hidden"],
        mask: AttentionMask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch positions hidden"]:
        """Compute the hidden states.

        Args:
            vectors: Input vectors.
            mask: Which positions belong together; causal if None.
            cache: Earlier positions; the new ones are added to it. Excludes `mask`.

        Raises:
            ValueError: If both mask and cache are given, the cache is not from `new_cache` or is
                full, the mask is for another number of rows, or the number of features is not
                `hidden_size`.
        """

    @abc.abstractmethod
    def new_cache(self, batch_size: int, capacity: int) -> Cache:
        """An empty cache, on the device of the parameters and in their dtype or a wider one.

        Args:
            batch_size: Number of rows.
            capacity: Number of positions that it must hold in a row.
        """

    @staticmethod
    def _own_cache(cache: Cache | None, kind: type[C]) -> C | None:
        """Refuse a cache of another kind than `new_cache` makes."""
        if cache is not None and not isinstance(cache, kind):
            raise ValueError(
                f"cache must be a {kind.__name__}, as new_cache makes; got {type(cache).__name__}."
            )
        return cache

    def _check_input(
        self, vectors: Tensor, mask: AttentionMask | None, cache: Cache | None
    ) -> AttentionMask:
        """The mask for checked vectors: the given one, the cache's, or a causal one."""
        if vectors.dim() != 3:
            raise ValueError(
                "vectors must have axes for rows, positions and features; got shape "
                f"{tuple(vectors.shape)}."
            )
        rows, new, features = vectors.shape
        if features != self.hidden_size:
            raise ValueError(
                f"vectors must have hidden_size = {self.hidden_size} features; "
                f"got shape {tuple(vectors.shape)}."
            )
        if cache is not None:
            if mask is not None:
                raise ValueError("mask and cache exclude each other: a cache is always causal.")
            return AttentionMask.cached(cache.lengths + new)
        if mask is None:
            return AttentionMask.causal()
        if mask.rows not in (None, rows):
            raise ValueError(f"mask must be made for {rows} rows; it has {mask.rows}.")
        return mask.to(vectors.device)

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device
