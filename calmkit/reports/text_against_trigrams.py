"""A variant's Brier-n against those of a trigram model of its training text."""

from calmkit.diagnostics import TextQuality

from .base import Report

__all__ = ["text_quality"]


def text_quality(report: Report, name: str) -> TextQuality | None:
    """The scores of a variant beside those of the trigrams that were scored at the same places.

    Args:
        report: The report.
        name: Name of the variant.

    Returns:
        None if it has no score, or its training text is unknown.
    """
    line = next(line for line in report.lines if line.name == name)
    counted = line.baselines.get("trigram")
    if not line.summary.brier or counted is None:
        return None
    return TextQuality(
        tuple(score.value for score in line.summary.brier),
        tuple(score.value for score in counted),
    )
