"""The model's text against what counting reaches: Brier-n beside those of trigrams.

Every part of a model can be sound while its text is word salad: it was trained too briefly, or it
is too small. A table of trigrams of the same training text, scored at the same places, is the
least that a language model should exceed; higher is better. Compared is the geometric mean of
Brier-1, ..., Brier-m, where the trigrams' are positive up to order m: for m = 4 this is BrierLM.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .base import Diagnostic

__all__ = ["TextQuality"]


@dataclass(frozen=True)
class TextQuality(Diagnostic):
    """Brier-1..4 in per cent, higher is better.

    Attributes:
        model: The model's.
        trigram: Those of a trigram model of the training text.
    """

    model: tuple[float, ...]
    trigram: tuple[float, ...]

    meaning = (
        "counting triples of tokens predicts the text as well, so that it reads as word "
        "salad, whatever the other lines say; train longer, or a larger model"
    )

    @property
    def order(self) -> int:
        """m, the number of Brier-n that are compared."""
        last = (n for n, value in enumerate(self.trigram) if value <= 0)
        return max(1, next(last, len(self.trigram)))

    @property
    def is_bad(self) -> bool:
        """The model is not above the trigrams."""
        return self._mean(self.model) <= self._mean(self.trigram)

    @property
    def summary(self) -> str:
        """Both scores."""
        name = "BrierLM"
        if self.order < len(self.trigram):
            name = f"geometric mean of Brier-1 to -{self.order}" if self.order > 1 else "Brier-1"
        model, trigram = self._mean(self.model), self._mean(self.trigram)
        return f"{name} {model:.3g}, of a trigram model {trigram:.3g}"

    def _mean(self, brier: Sequence[float]) -> float:
        product = math.prod(max(0.0, value) for value in brier[: self.order])
        return product ** (1 / self.order)
