"""Temperature and truncation for softmax models, whose probabilities are known.

    p(x) ~ exp(logit(x) / T),  kept: the k likeliest, of them the smallest set with mass >= top_p

It is the softmax baseline's counterpart of the black-box samplers. Source of the nucleus: Holtzman
et al., arXiv 1904.09751.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.finite import require_finite
from calmkit.typing import typed

from .base import Draw, SampledChunks, check_number
from .weights import check_top_p

__all__ = ["LogitDraw", "SoftmaxSampler", "drawable", "truncated_log_probabilities"]

# Below this temperature the largest logit is subtracted before the division, to avoid overflow.
_COLD = 1e-3
# Practically zero, but not zero in float32.
_COLDEST = 1e-30


@runtime_checkable
class LogitDraw(Draw, Protocol):
    """A source of single tokens with known probabilities."""

    logits: Tensor


@typed
def truncated_log_probabilities(
    logits: Float[Tensor, "*batch vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Float[Tensor, "*batch vocab"]:
    """Log-probabilities after temperature and truncation; -inf at tokens that were cut off.

    Args:
        logits: Logits of a softmax.
        temperature: T, positive and finite.
        top_k: Keep this many of the likeliest tokens; all if None.
        top_p: Keep the smallest set of likeliest tokens with this probability.

    Raises:
        ValueError: If an argument is out of range.
    """
    if isinstance(temperature, bool) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite; got {temperature}.")
    if top_k is not None:
        check_number("top_k", top_k, 1, "1, or None")
    check_top_p(top_p)
    if temperature < _COLD:  # logits / T would overflow
        logits, temperature = logits - logits.amax(-1, keepdim=True), max(temperature, _COLDEST)
    scores = (logits / temperature).log_softmax(dim=-1)
    if top_k is None and top_p == 1:
        return scores
    falling, order = scores.sort(dim=-1, descending=True)
    kept = torch.ones_like(falling, dtype=torch.bool)
    if top_k is not None:
        kept[..., top_k:] = False
        falling = falling.masked_fill(~kept, -torch.inf).log_softmax(dim=-1)
    if top_p < 1:
        share = falling.exp()
        kept &= share.cumsum(dim=-1) - share < top_p
    kept = torch.zeros_like(kept).scatter_(-1, order, kept)
    return scores.masked_fill(~kept, -torch.inf).log_softmax(dim=-1)


def drawable(probabilities: Tensor) -> Tensor:
    """Probabilities that are safe to draw from before the check for finite values has completed.

    On an accelerator a draw from NaN would end the process; `calmkit.finite` raises the error
    later, when the device has answered.
    """
    on_cpu = probabilities.device.type == "cpu"
    return probabilities if on_cpu else probabilities.nan_to_num(nan=1.0)


@dataclass(frozen=True)
class SoftmaxSampler:
    """Draws one token of each row from the sharpened and truncated softmax.

    Attributes:
        temperature: T, positive and finite; 1 changes nothing.
        top_k: Keep this many of the likeliest tokens; all if None.
        top_p: Keep the smallest set of likeliest tokens with this probability.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that `truncated_log_probabilities` would refuse later."""
        truncated_log_probabilities(
            torch.zeros(1), temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )

    def __call__(self, draw: Draw, generator: torch.Generator | None = None) -> SampledChunks:
        """Draw one token of each row.

        Raises:
            ValueError: If the source has no logits, such as a CALM's head.
            NonFiniteError: If a row's largest logit is not finite.
        """
        if not isinstance(draw, LogitDraw):
            raise ValueError(
                "draw must offer logits, as a TokenLM's does; this model can only be drawn from. "
                "Use BatchTemperature or ExactTemperature."
            )
        # -inf cuts off a single token; NaN, or -inf alone, gives no distribution.
        require_finite("logits", draw.logits.amax(dim=-1))
        logs = truncated_log_probabilities(
            draw.logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )
        rows = drawable(logs.reshape(-1, logs.shape[-1]).exp())
        tokens = torch.multinomial(rows, 1, generator=generator).view(*logs.shape[:-1], 1)
        ones = torch.ones_like(tokens[..., 0], dtype=torch.long)
        return SampledChunks(tokens, ones, ones.bool())
