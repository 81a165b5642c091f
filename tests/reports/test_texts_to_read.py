"""Sample texts in reports: under the names of their models, a softmax's of like variety beside."""

import dataclasses

import sample_results as samples

from calmkit.reports.lines import lines_of
from calmkit.reports.texts_to_read import texts_to_read, to_samples

SOFTMAX = samples.variant("softmax", softmax=True)


def read(*variants):
    return dict(texts_to_read(lines_of(samples.result(*variants))))


def test_texts_stand_under_the_names_of_those_who_wrote_them():
    found = read(samples.variant(seeds=(0, 1)), samples.ten().variants[-1])
    assert list(found) == ["energy", "held-out text"]
    assert [one.heading for one in found["energy"]] == ["T = 1", "T = 1/2", "T = 1/3"]
    assert found["energy"][1].texts[1] == "[It] is at T = 1/2."
    assert found["energy"][1].numbers == (
        "94.0 % of words, 80.0 % of chunks, 25.0 % of 4-grams known from training; "
        "distinct-2 0.55; 80 tokens"
    )
    (true,) = found["held-out text"]
    assert true.texts == ("[The value of] true text",) and "99.5 % of words" in true.numbers


def test_beside_each_text_stands_the_softmax_of_the_nearest_variety():
    """Distinct-2 of the head is 0.80, 0.55, 0.47, of the softmax 0.90, 0.75, 0.65, 0.57."""
    found = read(samples.variant(), SOFTMAX)
    assert [one.heading for one in found["energy"]] == [
        "T = 1", "beside it, softmax, T = 0.7",
        "T = 1/2", "beside it, softmax, T = 1/3",
        "T = 1/3", "beside it, softmax, T = 1/3",
    ]  # fmt: skip
    # Its own: without the temperatures that are only for reading side by side.
    assert [one.heading for one in found["softmax"]] == ["T = 1", "T = 1/2", "T = 1/3"]


def test_texts_of_earlier_schemas_have_no_numbers_and_no_neighbour():
    old = tuple(
        dataclasses.replace(one, name="", temperature=None, tokens=None, distinct=(),
                            known_words=None, known_chunks=None, known_4grams=None)
        for one in samples.texts()[:1]
    )  # fmt: skip
    (energy,) = read(samples.variant(samples=old), SOFTMAX)["energy"]
    assert (energy.heading, energy.numbers) == ("", "")
    assert energy.texts[0] == "[The value of] a text, in\ntwo lines: ä"
    assert read(samples.variant(samples=())) == {}


def test_the_file_has_every_text():
    file = to_samples(lines_of(samples.result(samples.variant(), SOFTMAX)))
    assert file.startswith("=== energy ===\n\n--- T = 1: 89.0 % of words")
    assert file.count("[The value of] a text, in\ntwo lines: ä\n") == 6 + 3
    assert file.count("[It] is at T = 1/3.\n") == 3 + 1
    assert file.endswith("[The value of] true text\n")
