"""Turns: every prefix is within a row of the shares, and a period is exact."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calmkit.orders import Turns, shares_of

weights = st.lists(st.integers(1, 30), min_size=1, max_size=6)


@given(weights)
def test_each_prefix_is_within_one_row_of_the_shares(parts):
    shares = shares_of(parts)
    turns = Turns(shares)
    had = [0] * len(parts)
    bound = 1 - Fraction(1, max(2 * len(parts) - 2, 1))
    texts, earlier = turns.at(np.arange(3 * turns.period))
    for row, (text, before) in enumerate(zip(texts.tolist(), earlier.tolist(), strict=True), 1):
        assert before == had[text]  # each text's own rows are counted without a gap
        had[text] += 1
        assert all(abs(c - row * s) <= bound for c, s in zip(had, shares, strict=True))
    assert had == [3 * turns.period * share for share in shares]


@given(weights, st.integers(0, 10**12), st.integers(1, 50))
def test_rows_far_away_follow_the_same_period(parts, begin, count):
    turns = Turns(shares_of(parts))
    rows = np.arange(begin, begin + count)
    texts, earlier = turns.at(rows)
    again, _ = turns.at(rows % turns.period)
    assert (texts == again).all()
    near = [int((turns.at(np.arange(r % turns.period))[0] == t).sum())
            for r, t in zip(rows, texts, strict=True)]  # fmt: skip
    assert (earlier == rows // turns.period * turns.parts[texts] + near).all()


def test_shares_are_exact_where_they_are_simple():
    assert shares_of([0.7, 0.3]) == (Fraction(7, 10), Fraction(3, 10))
    assert shares_of([2, 1]) == (Fraction(2, 3), Fraction(1, 3))
    assert shares_of([5.0]) == (Fraction(1),)


@given(st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=7))
def test_other_shares_are_rounded_to_a_part_in_ten_thousand(given_weights):
    shares = shares_of(given_weights)
    assert sum(shares) == 1
    for share, weight in zip(shares, given_weights, strict=True):
        exact = Fraction(str(weight)) / sum(Fraction(str(one)) for one in given_weights)
        assert share > 0
        # At least one part each: those that are given to tiny texts are taken from others.
        assert abs(share - exact) <= Fraction(len(given_weights), 10_000)


@pytest.mark.parametrize("weight", [0, -0.5, float("nan"), float("inf")])
def test_weights_must_be_positive(weight):
    with pytest.raises(ValueError, match=r"weight must be a finite number above 0; got"):
        shares_of([0.5, weight])
