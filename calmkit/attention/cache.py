"""Preallocated caches of earlier positions, with rows of different lengths."""

from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["KVCache", "PositionCache"]

C = TypeVar("C", bound="PositionCache")


class PositionCache:
    """Tensors with an entry for every layer, row and position, filled row by row.

    A cache is mutable: `append`, which each kind of cache defines, and `advance` change it in
    place. `select` makes a new one.

    Attributes:
        lengths: Number of positions in use in each row, (batch).
        longest: The same in the longest row.
    """

    @typed
    def __init__(
        self,
        *stores: Float[Tensor, "layers batch capacity *entry"],
        lengths: Int[Tensor, " batch"],
    ) -> None:
        """Wrap existing tensors.

        Raises:
            ValueError: If a length is out of range.
        """
        self._stores, self.lengths = stores, lengths
        # The longest row as an integer: reading the tensor at each step would synchronise.
        self.longest = int(lengths.max()) if len(lengths) else 0
        if self.longest > self.capacity or bool((lengths < 0).any()):
            raise ValueError(
                f"lengths must be in [0, capacity = {self.capacity}]; got {lengths.tolist()}."
            )

    @property
    def capacity(self) -> int:
        """Largest number of positions of a row."""
        return self._stores[0].shape[2]

    def check_room(self, new: int) -> None:
        """Refuse more positions than the longest row has room for."""
        if self.longest + new > self.capacity:
            raise ValueError(
                "capacity must hold all positions of the longest row; the cache has "
                f"{self.capacity}, {self.longest} are in use and {new} more are needed. Make it "
                "with a larger capacity."
            )

    def _write(self, layer: int, name: str, *entries: Tensor) -> None:
        """Write one layer's new entries, (batch, new, ...), after each row's own length."""
        batch, new = entries[0].shape[:2]
        if batch != len(self.lengths):
            raise ValueError(
                f"{name} must have the {len(self.lengths)} rows of the cache; got shape "
                f"{tuple(entries[0].shape)}."
            )
        self.check_room(new)
        rows = torch.arange(batch, device=self.lengths.device)[:, None]
        places = self.lengths[:, None] + torch.arange(new, device=self.lengths.device)
        for store, entry in zip(self._stores, entries, strict=True):
            store[layer, rows, places] = entry.to(store.dtype)

    def advance(self, new: int) -> None:
        """Count `new` more positions in every row, once all layers have appended them."""
        self.lengths = self.lengths + new
        self.longest += new

    @typed
    def select(
        self: C,
        rows: Int[Tensor, " chosen"],
        lengths: Int[Tensor, " chosen"],
        *,
        out: C | None = None,
    ) -> C:
        """Copy rows, each cut to a prefix: for ragged prompts, branches and finished rows.

        Args:
            rows: Index of each new row among the old ones; repeats are allowed.
            lengths: Number of positions kept in each new row, at most its current length.
            out: A cache with at least as many rows that is no longer needed. Its memory is
                overwritten, which is faster than allocating new memory.

        Raises:
            ValueError: If a new row would be longer than the old one, or does not fit into `out`.
        """
        if bool((lengths > self.lengths[rows]).any()):
            raise ValueError(
                f"lengths must be at most those of the rows, {self.lengths[rows].tolist()}; "
                f"got {lengths.tolist()}."
            )
        if out is None:
            return type(self)(*(store[:, rows] for store in self._stores), lengths=lengths)
        if out.capacity < self.capacity or len(out.lengths) < len(rows):
            raise ValueError(
                f"out must hold {len(rows)} rows of capacity {self.capacity}; it has "
                f"{len(out.lengths)} of {out.capacity}."
            )
        longest = int(lengths.max()) if len(lengths) else 0
        stores = [store[:, : len(rows)] for store in out._stores]
        for old, new in zip(self._stores, stores, strict=True):
            torch.index_select(old[:, :, :longest], 1, rows, out=new[:, :, :longest])
        return type(self)(*stores, lengths=lengths)


class KVCache(PositionCache):
    """Keys and values of the positions seen so far.

    Attributes:
        keys: Stored keys, (layers, batch, capacity, kv_heads, head_dim).
        values: Stored values, of the same shape.
        lengths: Number of positions in use in each row, (batch).
    """

    @typed
    def __init__(
        self,
        keys: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        values: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        lengths: Int[Tensor, " batch"],
    ) -> None:
        """Wrap existing tensors; backbones make empty caches with `Backbone.new_cache`.

        Raises:
            ValueError: If a length is out of range.
        """
        super().__init__(keys, values, lengths=lengths)
        self.keys, self.values = keys, values

    @typed
    def append(
        self,
        layer: int,
        keys: Float[Tensor, "batch new kv_heads head_dim"],
        values: Float[Tensor, "batch new kv_heads head_dim"],
    ) -> tuple[
        Float[Tensor, "batch stored kv_heads head_dim"],
        Float[Tensor, "batch stored kv_heads head_dim"],
    ]:
        """Write one layer's new keys and values after each row's own length.

        Returns:
            All keys and values of the layer, including unused ones beyond a row's length. In
            eager mode on the CPU they end at the longest row, since its kernels would compute the
            rest in vain. Elsewhere they have full capacity: compiled graphs need constant shapes,
            and kernels for padded caches need contiguous memory.

        Raises:
            ValueError: If the number of rows differs, or the cache is full.
        """
        self._write(layer, "keys", keys, values)
        stored = self.capacity
        if keys.device.type == "cpu" and not torch.compiler.is_compiling():
            stored = self.longest + keys.shape[1]
        return self.keys[layer, :, :stored], self.values[layer, :, :stored]
