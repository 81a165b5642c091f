"""Measures of quality that need samples only.

`BrierLM` is a torchmetrics `Metric`, imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .bootstrap import Estimate as Estimate
from .bootstrap import bootstrap_ratio as bootstrap_ratio
from .brier import brier as brier
from .brier import brier_ngram as brier_ngram
from .brier import expected_brier as expected_brier
from .brier_lm import BrierLMResult as BrierLMResult
from .brier_lm import NgramScore as NgramScore
from .brier_lm import combine_brier as combine_brier
from .brier_lm import summarize_brier as summarize_brier
from .document_scores import DocumentScores as DocumentScores
from .document_scores import paired_difference as paired_difference
from .ngram_sums import NgramSums as NgramSums
from .ngram_sums import counted_ngrams as counted_ngrams
from .reconstruction import reconstructed_tokens as reconstructed_tokens
from .softmax import softmax_brier as softmax_brier
from .softmax import softmax_collision as softmax_collision

if TYPE_CHECKING:
    from .brier_lm_metric import BrierLM as BrierLM


def __getattr__(name: str) -> Any:
    """`BrierLM` when it is first asked for: torchmetrics takes long to import."""
    if name == "BrierLM":
        return importlib.import_module("calmkit.metrics.brier_lm_metric").BrierLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
