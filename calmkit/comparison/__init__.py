"""Comparing heads fairly: same autoencoder, backbone, text, seed and budget."""

from .report import write_report as write_report
from .results import ComparisonResult as ComparisonResult
from .results import HeadResult as HeadResult
from .results import read_results as read_results
