"""Measures of quality that need samples only."""

from .bootstrap import Estimate as Estimate
from .bootstrap import bootstrap_ratio as bootstrap_ratio
from .brier import brier_ngram as brier_ngram
from .brier import expected_brier as expected_brier
from .brier_lm import BrierLM as BrierLM
from .brier_lm import summarize_brier as summarize_brier
from .reconstruction import reconstructed_tokens as reconstructed_tokens
from .softmax import softmax_brier as softmax_brier
from .softmax import softmax_collision as softmax_collision
