"""Comparing models fairly: same text, seeds and budget; differences with errors."""

from .results import ComparisonResult as ComparisonResult
from .results import VariantResult as VariantResult
from .results import read_results as read_results
