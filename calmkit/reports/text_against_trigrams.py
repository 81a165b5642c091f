"""A variant's BrierLM against that of a trigram model of its training text."""

from calmkit.diagnostics import TextQuality

from .base import Report

__all__ = ["text_quality"]


def text_quality(report: Report, name: str) -> TextQuality | None:
    """The score of a variant beside that of the trigrams that were scored at the same places.

    Args:
        report: The report.
        name: Name of the variant.

    Returns:
        None if it has no score, or its training text is unknown.
    """
    line = next(line for line in report.lines if line.name == name)
    counted = [
        baseline.brier_lm
        for baseline in report.baselines
        if baseline.name.startswith("trigram") and name in baseline.variants
    ]
    if line.summary.brier_lm is None or not counted:
        return None
    return TextQuality(line.summary.brier_lm, counted[0])
