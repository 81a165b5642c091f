"""Cache of a recurrent model: the states of every position, so that a row can be cut anywhere."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from calmkit.attention import PositionCache
from calmkit.typing import typed

__all__ = ["StateCache"]


class StateCache(PositionCache):
    """States of the positions seen so far, for each layer.

    Attributes:
        states: Stored states, (layers, batch, capacity, state).
        lengths: Number of positions in use in each row, (batch).
    """

    @typed
    def __init__(
        self,
        states: Float[Tensor, "layers batch capacity state"],
        lengths: Int[Tensor, " batch"],
    ) -> None:
        """Wrap existing tensors; backbones make empty caches with `Backbone.new_cache`.

        Raises:
            ValueError: If a length is out of range.
        """
        super().__init__(states, lengths=lengths)
        self.states = states

    def last(self, layer: int) -> Tensor:
        """The state at each row's last position, (batch, state); zeros in an empty row."""
        rows = torch.arange(len(self.lengths), device=self.lengths.device)
        states = self.states[layer, rows, (self.lengths - 1).clamp_min(0)]
        return states.masked_fill((self.lengths == 0)[:, None], 0.0)

    @typed
    def append(self, layer: int, states: Float[Tensor, "batch new state"]) -> None:
        """Write one layer's new states after each row's own length.

        Raises:
            ValueError: If the number of rows differs, or the cache is full.
        """
        self._write(layer, "states", states)
