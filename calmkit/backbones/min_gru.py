r"""Pre-norm residual network of minGRU layers: a state of fixed size instead of attention.

    x <- x + W_o mingru(norm(x)),    x <- x + swiglu(norm(x)),    output norm(x)

where minGRU gates each feature of its state by the current input only,

    z_t = sigmoid(W_z x_t + c),    h_t = (1 - z_t) h_{t-1} + z_t W_h x_t,    h_{-1} = 0

so that a scan computes all positions in parallel. Each packed document starts from h = 0.

Source: Feng et al., "Were RNNs All We Needed?", arXiv 2410.01201, section 3.1.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from calmkit.attention import AttentionMask
from calmkit.bounds import check_at_least
from calmkit.nn import SwiGLU, scaled_normal_
from calmkit.typing import typed

from .base import Backbone, Cache
from .linear_scan import linear_scan
from .state_cache import StateCache

__all__ = ["MinGRUBackbone"]


class MinGRUBackbone(Backbone):
    """Recurrent network over chunk vectors, parallel in training."""

    def __init__(self, hidden_size: int, *, depth: int = 4, ff_size: int | None = None) -> None:
        """Build `depth` layers; see `SwiGLU` for `ff_size`.

        Raises:
            ValueError: If a size is not positive.
        """
        super().__init__(hidden_size)
        check_at_least(1, depth=depth)
        self.layers = nn.ModuleList(MinGRULayer(hidden_size, ff_size) for _ in range(depth))
        self.norm = nn.RMSNorm(hidden_size, eps=1e-6)
        scaled_normal_(self)
        for name, module in self.named_modules():
            if name.endswith(("output", "down")):  # layers that write into the residual stream
                scaled_normal_(module, gain=1 / math.sqrt(2 * depth))

    @typed
    def forward(
        self,
        vectors: Float[Tensor, "batch positions hidden"],
        mask: AttentionMask | None = None,
        cache: Cache | None = None,
    ) -> Float[Tensor, "batch positions hidden"]:
        """Compute the hidden states; see `Backbone.forward`.

        Raises:
            ValueError: As there, or if the mask is full or has a window.
        """
        if mask is not None and (
            not mask.is_causal or mask.window is not None or mask.key_lengths is not None
        ):
            raise ValueError(
                "mask must be causal or packed, without a window: a state sees the whole past and "
                f"nothing else; got {mask}. TransformerBackbone supports any mask."
            )
        mask = self._check_input(vectors, mask, cache)
        cache = self._own_cache(cache, StateCache)
        starts = mask.positions(vectors.shape[1], vectors.device)[:, :, None] == 0
        x = vectors
        for index, layer in enumerate(self.layers):
            x = layer(x, starts, cache, index)
        if cache is not None:
            cache.advance(vectors.shape[1])
        return self.norm(x)

    def new_cache(self, batch_size: int, capacity: int) -> StateCache:
        """An empty cache of states, in at least float32; see `Backbone.new_cache`."""
        weight = self.norm.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        shape = (len(self.layers), batch_size, capacity, self.hidden_size)
        lengths = torch.zeros(batch_size, dtype=torch.long, device=weight.device)
        return StateCache(weight.new_zeros(shape, dtype=dtype), lengths)


class MinGRULayer(nn.Module):
    """minGRU and feed-forward, each with a norm before it, added to the residual stream."""

    def __init__(self, hidden_size: int, ff_size: int | None) -> None:
        super().__init__()
        self.memory_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.gate = nn.Linear(hidden_size, hidden_size)
        self.candidate = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, hidden_size, bias=False)
        self.feed_forward_norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.feed_forward = SwiGLU(hidden_size, ff_size)

    def forward(self, x: Tensor, starts: Tensor, cache: StateCache | None, index: int) -> Tensor:
        """Apply the layer; `index` is its index in the cache."""
        normed = self.memory_norm(x)
        # In half precision 1 - z would lose small gates, on which long memory depends.
        dtype = torch.promote_types(x.dtype, torch.float32)
        gate = self.gate(normed).to(dtype)
        keep = torch.sigmoid(-gate).masked_fill(starts, 0.0)  # 1 - z, also where z rounds to 1
        inputs = torch.sigmoid(gate) * self.candidate(normed).to(dtype)
        before = None if cache is None else cache.last(index)
        states = linear_scan(keep, inputs, before)
        if cache is not None:
            cache.append(index, states)
        x = x + self.output(states.to(x.dtype))
        return x + self.feed_forward(self.feed_forward_norm(x))
