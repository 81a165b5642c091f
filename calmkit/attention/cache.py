"""Key/value cache: preallocated, batched, with rows of different lengths."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.typing import typed

__all__ = ["KVCache"]


class KVCache:
    """Keys and values of the positions seen so far.

    A cache is state: `append` and `advance` change it in place. `select` makes a new one.

    Attributes:
        keys: Stored keys, (layers, batch, capacity, kv_heads, head_dim).
        values: Stored values, of the same shape.
        lengths: Positions in use in each row, (batch).
    """

    @typed
    def __init__(
        self,
        keys: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        values: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        lengths: Int[Tensor, " batch"],
    ) -> None:
        """Hold given tensors; backbones make empty caches with `Backbone.new_cache`.

        Raises:
            ValueError: If a length is out of range.
        """
        self.keys, self.values, self.lengths = keys, values, lengths
        # The longest row as an integer: asking the tensor at each step would stop the device.
        self._longest = int(lengths.max()) if len(lengths) else 0
        if self._longest > keys.shape[2] or bool((lengths < 0).any()):
            raise ValueError(
                f"lengths must be in [0, capacity = {keys.shape[2]}]; got {lengths.tolist()}."
            )

    @typed
    def append(
        self,
        layer: int,
        keys: Float[Tensor, "batch new kv_heads head_dim"],
        values: Float[Tensor, "batch new kv_heads head_dim"],
    ) -> None:
        """Write one layer's new keys and values behind each row's own length.

        Raises:
            ValueError: If the batch is another one, or the cache has no room left.
        """
        if keys.shape[0] != self.keys.shape[1]:
            raise ValueError(
                f"keys must come for the {self.keys.shape[1]} rows of the cache; got shape "
                f"{tuple(keys.shape)}."
            )
        new, capacity = keys.shape[1], self.keys.shape[2]
        if self._longest + new > capacity:
            raise ValueError(
                f"capacity must hold all positions of the longest row; the cache has {capacity}, "
                f"{self._longest} are in use and {new} more came. Make it with a larger capacity."
            )
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        places = self.lengths[:, None] + torch.arange(new, device=keys.device)
        self.keys[layer, rows, places] = keys.to(self.keys.dtype)
        self.values[layer, rows, places] = values.to(self.values.dtype)

    def advance(self, new: int) -> None:
        """Count `new` more positions in every row, once all layers have appended them."""
        self.lengths = self.lengths + new
        self._longest += new

    @typed
    def select(self, rows: Int[Tensor, " chosen"], lengths: Int[Tensor, " chosen"]) -> "KVCache":
        """Copy rows, each cut to a prefix: for ragged prompts, branches and finished rows.

        Args:
            rows: Index of each new row among the old ones; repeats are allowed.
            lengths: Positions kept in each new row, at most those it has.

        Raises:
            ValueError: If a new row would be longer than the old one.
        """
        if bool((lengths > self.lengths[rows]).any()):
            raise ValueError(
                f"lengths must be at most those of the rows, {self.lengths[rows].tolist()}; "
                f"got {lengths.tolist()}."
            )
        return KVCache(self.keys[:, rows], self.values[:, rows], lengths)
