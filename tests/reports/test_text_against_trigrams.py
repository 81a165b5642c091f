"""The score of a text beside that of trigrams."""

import pytest
from sample_results import TRIGRAM, UNIGRAM, result, variant

from calmkit.reports import Report, text_quality


def of(**baselines):
    return Report.of(result(variant("one", baselines=baselines or None)))


def test_it_is_that_of_the_trigrams_at_the_same_places():
    report = of(unigram=UNIGRAM, trigram=TRIGRAM)
    found = text_quality(report, "one")
    assert found.model == report.lines[0].summary.brier_lm
    product = 1.0
    for score in TRIGRAM:
        product *= score.value / 100
    assert found.trigram == pytest.approx(100 * product**0.25)


def test_it_is_absent_without_trigrams():
    assert text_quality(of(), "one") is None
    assert text_quality(of(unigram=UNIGRAM), "one") is None
