"""The scores of a text beside those of trigrams."""

from sample_results import TRIGRAM, UNIGRAM, result, variant

from calmkit.reports import Report, text_quality


def of(**baselines):
    return Report.of(result(variant("one", baselines=baselines or None), variant("two")))


def test_they_are_those_of_the_variant_and_of_the_trigrams():
    report = of(unigram=UNIGRAM, trigram=TRIGRAM[::-1])
    found = text_quality(report, "one")
    assert found.model == tuple(score.value for score in report.lines[0].summary.brier)
    assert found.trigram == tuple(score.value for score in TRIGRAM[::-1])
    assert text_quality(report, "two").trigram == tuple(score.value for score in TRIGRAM)


def test_they_are_absent_without_trigrams():
    assert text_quality(of(), "one") is None
    assert text_quality(of(unigram=UNIGRAM), "one") is None
