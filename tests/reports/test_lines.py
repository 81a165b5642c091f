"""The scores of a text beside those of trigrams."""

from sample_results import TRIGRAM, UNIGRAM, result, variant

from calmkit.reports import Report


def of(**baselines):
    return Report.of(result(variant("one", baselines=baselines or None), variant("two")))


def test_they_are_those_of_the_variant_and_of_the_trigrams():
    report = of(unigram=UNIGRAM, trigram=TRIGRAM[::-1])
    found = report.lines[0].text_quality
    assert found.model == tuple(score.value for score in report.lines[0].summary.brier)
    assert found.trigram == tuple(score.value for score in TRIGRAM[::-1])
    assert report.lines[1].text_quality.trigram == tuple(score.value for score in TRIGRAM)


def test_they_are_absent_without_trigrams():
    assert of().lines[0].text_quality is None
    assert of(unigram=UNIGRAM).lines[0].text_quality is None
