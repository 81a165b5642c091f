"""Temperature and truncation where probabilities are at hand: for softmax models.

    p(x) ~ exp(logit(x) / T),  kept: the k likeliest, of them the smallest set with mass >= top_p

The baseline's counterpart of the samplers that only draw. Source of the nucleus: Holtzman et al.,
arXiv 1904.09751.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from calmkit.sampling.base import Draw, SampledChunks
from calmkit.typing import typed

__all__ = ["LogitDraw", "SoftmaxSampler", "truncated_log_probabilities"]


@runtime_checkable
class LogitDraw(Protocol):
    """A source of single tokens that knows its probabilities."""

    logits: Tensor

    def __call__(self, n: int, /) -> Tensor:
        """Draw n independent candidates of every row."""
        ...


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
        logits: Of a softmax.
        temperature: T, positive.
        top_k: Keep that many of the likeliest tokens; all if None.
        top_p: Keep the smallest set of likeliest tokens with this probability.

    Raises:
        ValueError: If an argument is out of range.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive; got {temperature}.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, or None; got {top_k}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1]; got {top_p}.")
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


@dataclass(frozen=True)
class SoftmaxSampler:
    """Draws one token of each row from the sharpened and truncated softmax.

    Attributes:
        temperature: T, positive; 1 changes nothing.
        top_k: Keep that many of the likeliest tokens; all if None.
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
        """Draw.

        Raises:
            ValueError: If the source has no logits, as the head of a CALM.
        """
        if not isinstance(draw, LogitDraw):
            raise ValueError(
                "draw must offer logits, as a TokenLM's does; this model can only be drawn from. "
                "Use BatchTemperature or ExactTemperature."
            )
        logs = truncated_log_probabilities(
            draw.logits, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p
        )
        rows = logs.reshape(-1, logs.shape[-1]).exp()
        tokens = torch.multinomial(rows, 1, generator=generator).view(*logs.shape[:-1], 1)
        ones = torch.ones_like(tokens[..., 0])
        return SampledChunks(tokens, ones, ones.bool())
