"""Comparing models fairly: same text, seeds and budget; differences with errors."""

from .report import write_report as write_report
from .results import ComparisonResult as ComparisonResult
from .results import RunResult as RunResult
from .results import VariantResult as VariantResult
from .results import read_results as read_results
from .summary import Summary as Summary
from .summary import summarize as summarize
