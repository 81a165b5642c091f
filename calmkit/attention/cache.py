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

    def __init__(
        self,
        keys: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        values: Float[Tensor, "layers batch capacity kv_heads head_dim"],
        lengths: Int[Tensor, " batch"],
    ) -> None:
        """Hold given tensors; backbones make empty caches with `Backbone.new_cache`."""
        self.keys, self.values, self.lengths = keys, values, lengths

    @typed
    def append(
        self,
        layer: int,
        keys: Float[Tensor, "batch new kv_heads head_dim"],
        values: Float[Tensor, "batch new kv_heads head_dim"],
    ) -> None:
        """Write one layer's new keys and values behind each row's own length.

        Raises:
            ValueError: If more positions are written than the cache was made for.
        """
        new, capacity = keys.shape[1], self.keys.shape[2]
        if new > capacity:
            raise ValueError(f"a cache of {capacity} positions cannot take {new} more.")
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        places = self.lengths[:, None] + torch.arange(new, device=keys.device)
        self.keys[layer, rows, places] = keys.to(self.keys.dtype)
        self.values[layer, rows, places] = values.to(self.values.dtype)

    def advance(self, new: int) -> None:
        """Count `new` more positions in every row, once all layers have appended them."""
        self.lengths = self.lengths + new

    @typed
    def select(self, rows: Int[Tensor, " chosen"], lengths: Int[Tensor, " chosen"]) -> "KVCache":
        """Copy rows, each cut to a prefix: for ragged prompts, branches and finished rows.

        Args:
            rows: Index of each new row among the old ones; repeats are allowed.
            lengths: Positions kept in each new row, at most those it has.
        """
        return KVCache(self.keys[:, rows], self.values[:, rows], lengths)
