"""Quality metrics that need only samples.

`BrierLM` is a torchmetrics `Metric` and is imported on first access.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .bleu import bleu as bleu
from .bleu import bleu_counts as bleu_counts
from .bootstrap import Estimate as Estimate
from .bootstrap import bootstrap_ratio as bootstrap_ratio
from .brier import brier as brier
from .brier import brier_ngram as brier_ngram
from .brier import expected_brier as expected_brier
from .brier_lm import BrierLMResult as BrierLMResult
from .brier_lm import NgramScore as NgramScore
from .brier_lm import combine_brier as combine_brier
from .brier_lm import summarize_brier as summarize_brier
from .chrf import chrf as chrf
from .chrf import chrf_counts as chrf_counts
from .document_scores import DocumentScores as DocumentScores
from .document_scores import paired_difference as paired_difference
from .ngram_sums import NgramSums as NgramSums
from .ngram_sums import counted_ngrams as counted_ngrams
from .reconstruction import reconstructed_tokens as reconstructed_tokens
from .softmax import softmax_brier as softmax_brier
from .softmax import softmax_collision as softmax_collision

if TYPE_CHECKING:
    from .brier_lm_metric import BrierLM as BrierLM

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .bootstrap import errors_of as errors_of
from .bootstrap import estimates_from as estimates_from
from .bootstrap import resampled_ratios as resampled_ratios
from .brier_lm import brier_lm_interval as brier_lm_interval
from .brier_lm import linear_weights as linear_weights
from .intervals import Variance as Variance
from .intervals import jackknife as jackknife
from .intervals import ratios_without_each as ratios_without_each


def __getattr__(name: str) -> Any:
    """Import `BrierLM` on first access: torchmetrics takes long to import."""
    if name == "BrierLM":
        return importlib.import_module("calmkit.metrics.brier_lm_metric").BrierLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
