"""The model's text against what counting reaches: BrierLM beside that of trigrams.

Every part of a model can be sound while its text is word salad: it was trained too briefly, or it
is too small. A table of trigrams of the same training text, scored at the same places, is the
least that a language model should exceed; higher is better.
"""

from dataclasses import dataclass

from calmkit.metrics import Estimate

from .base import Diagnostic

__all__ = ["TextQuality"]

# The same limit as for the conditioning gap.
_ERRORS = 2.0


@dataclass(frozen=True)
class TextQuality(Diagnostic):
    """BrierLM, higher is better.

    Attributes:
        model: The model's; 0 without an error if it is undefined.
        trigram: That of a trigram model of the training text.
    """

    model: Estimate
    trigram: float

    @property
    def is_bad(self) -> bool:
        """The model is not above the trigram by two standard errors."""
        return self.model.value - _ERRORS * (self.model.standard_error or 0.0) <= self.trigram

    @property
    def summary(self) -> str:
        """Both scores."""
        error = self.model.standard_error
        error_text = "" if error is None else f" ± {error:.2g}"
        return f"BrierLM {self.model.value:.3g}{error_text}, of a trigram model {self.trigram:.3g}"

    @property
    def meaning(self) -> str:
        """The meaning of a bad value, and a remedy."""
        return (
            "counting triples of tokens predicts the text as well, so that it reads as word "
            "salad, whatever the other lines say; train longer, or a larger model"
        )
