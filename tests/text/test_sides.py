"""Tests for sides: held out by the content alone, near the wanted share."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.text import (
    ByHash,
    OneSide,
    Sample,
    content_key,
    hash_of,
    rule_for_both_sides,
)

seeds = st.integers(0, 2**70)


def test_hash_is_that_of_the_docstring():
    key = content_key("some  text")
    want = hashlib.blake2b(key, digest_size=8, key=b"7").digest()
    assert hash_of(key, 7) == int.from_bytes(want, "little")
    assert ByHash.of_fraction(0.25, 7).below == 2**62


@given(st.lists(st.integers(0, 40), min_size=2, max_size=60), st.floats(0.01, 0.99), seeds)
def test_both_sides_have_text_and_copies_stay_together(numbers, fraction, seed):
    texts = [("word {}", " word\n{}", "word\t {}\r\n")[i % 3].format(n)
             for i, n in enumerate(numbers)]  # fmt: skip
    rule = ByHash.of_fraction(fraction, seed)
    if len(set(numbers)) < 2:
        with pytest.raises(ValueError, match=r"at least 2 different documents.*copies of one"):
            rule_for_both_sides(lambda: texts, rule, None)
        return
    found = rule_for_both_sides(lambda: texts, rule, None)
    sides = {n: {found.side_of(content_key(text)) for text, m in zip(texts, numbers, strict=True)
                 if m == n} for n in numbers}  # fmt: skip
    assert all(len(side) == 1 for side in sides.values())
    assert {side for few in sides.values() for side in few} == {"train", "validation"}
    places = sorted({hash_of(content_key(text), seed) for text in texts})
    held_out = [place for place in places if place < found.below]
    wanted = [place for place in places if place < rule.below]
    # The rule itself where it leaves both sides some text; else one document more, or less.
    assert held_out == (wanted or places[:1] if len(wanted) < len(places) else places[:-1])


@given(st.sets(st.integers(0, 10**6), min_size=20, max_size=60), seeds)
def test_new_text_moves_no_old_document(numbers, seed):
    rule = ByHash.of_fraction(0.5, seed)
    texts = [str(number) for number in numbers]
    few = rule_for_both_sides(lambda: texts[:10], rule, None)
    many = rule_for_both_sides(lambda: texts, rule, None)
    if few == rule:  # both sides had text
        for text in texts[:10]:
            assert few.side_of(content_key(text)) == many.side_of(content_key(text))


def test_share_is_met_by_many_documents_and_depends_on_the_seed():
    keys = [content_key(f"document {number}") for number in range(20_000)]
    found = []
    for seed in (0, 1):
        rule = ByHash.of_fraction(0.1, seed)
        found.append({key for key in keys if rule.side_of(key) == "validation"})
        # Six standard deviations of a binomial distribution.
        assert abs(len(found[-1]) - 2000) < 6 * (20_000 * 0.09) ** 0.5
    assert len(found[0] & found[1]) < 400


def test_copies_of_held_out_documents_are_left_out():
    rule = OneSide("train", frozenset([content_key("held out")]))
    assert rule.side_of(content_key(" held\nout ")) is None
    assert rule.side_of(content_key("other")) == "train"
    with pytest.raises(ValueError, match="all of it is in the validation files"):
        rule_for_both_sides(lambda: ["held out"], rule, None)
    with pytest.raises(ValueError, match="it is empty"):
        rule_for_both_sides(lambda: [], rule, None)


@given(st.permutations(range(30)), st.integers(0, 100))
def test_a_sample_is_of_the_training_side_and_not_of_the_order(order, seed):
    rule = ByHash.of_fraction(0.3, seed)
    texts = [f"document {number}" for number in range(30)]
    samples = []
    for numbers in (range(30), order):
        sample = Sample(seed)
        rule_for_both_sides(lambda numbers=numbers: [texts[n] for n in numbers], rule, sample)
        samples.append(sample.texts())
    assert samples[0] == samples[1]
    want = {text for text in texts if rule.side_of(content_key(text)) == "train"}
    assert set(samples[0]) == want


def test_a_sample_is_bounded_and_begins_like_a_larger_one(monkeypatch):
    texts = {content_key(str(n)): f"{n:100d}" for n in range(200)}
    found = []
    for size in (2_000, 100_000):
        monkeypatch.setattr("calmkit.text.survey._SAMPLE_CHARACTERS", size)
        sample = Sample(0)
        for key, text in texts.items():
            sample.offer(key, text)
        found.append(sample.texts())
    assert sum(map(len, found[0])) == 2_000
    assert found[0] == found[1][:20] and len(found[1]) == 200


@pytest.mark.parametrize("fraction", [0.9999, 0.0001])
def test_a_learner_never_sees_what_is_held_out_where_the_rule_is_moved(fraction):
    sample = Sample(0)
    texts = [f"document {number}" for number in range(10)]
    rule = rule_for_both_sides(lambda: texts, ByHash.of_fraction(fraction, 0), sample)
    train = [text for text in texts if rule.side_of(content_key(text)) == "train"]
    assert sorted(sample.texts()) == sorted(train)
    assert len(train) == (1 if fraction > 0.5 else 9)
