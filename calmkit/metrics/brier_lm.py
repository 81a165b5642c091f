r"""BrierLM: one number for a language model that can only be sampled.

    BrierLM = 100 (Brier-1 Brier-2 Brier-3 Brier-4)^(1/4)

Orientation: **higher is better**, at most 100. Each Brier-n is estimated without bias and can
therefore be negative, for a weak model or by chance. The geometric mean is undefined then:
`brier_lm` is 0 and `not_positive` says why. (The published code clips the *product* at zero, so a
collapsed model with four negative scores reaches 100.)

Source: "Continuous Autoregressive Language Models", arXiv 2510.27688.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from calmkit.metrics.bootstrap import Estimate

__all__ = ["BrierLM", "summarize_brier"]


@dataclass(frozen=True)
class BrierLM:
    """BrierLM with what it is made of.

    Attributes:
        brier_lm: The score, 0 if it is undefined.
        brier: Brier-1, Brier-2, ..., signed, times 100.
        not_positive: The orders n whose Brier-n is zero or negative.
    """

    brier_lm: float
    brier: tuple[Estimate, ...]
    not_positive: tuple[int, ...]


def summarize_brier(brier: Sequence[Estimate]) -> BrierLM:
    """Combine Brier-1, Brier-2, ... (at most 1 each) into BrierLM.

    Raises:
        ValueError: If there is no score.
    """
    if not brier:
        raise ValueError("brier must hold at least one score; got none.")
    scaled = tuple(Estimate(100 * b.value, 100 * b.standard_error) for b in brier)
    not_positive = tuple(n for n, b in enumerate(brier, start=1) if b.value <= 0)
    score = 0.0 if not_positive else math.prod(b.value for b in scaled) ** (1 / len(scaled))
    return BrierLM(score, scaled, not_positive)
