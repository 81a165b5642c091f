"""Bounds of arguments: what is let through, and what the error says."""

import math

import pytest

from calmkit.bounds import check_at_least, check_in, check_positive


def test_numbers_within_their_bounds_pass():
    check_at_least(1, width=1, depth=7)
    check_at_least(0, share=0.0)
    check_positive(scale=1e-30, size=3)
    check_in("[0, 1)", low=0, middle=0.5)
    check_in("(0, 1]", middle=0.5, high=1)
    check_in("[0, 1]", low=0.0, high=1.0)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_at_least(1, width=2, depth=0), "depth must be at least 1; got 0."),
        (lambda: check_at_least(0, step=-1), "step must be at least 0; got -1."),
        (lambda: check_at_least(0, scale=math.nan), "scale must be at least 0; got nan."),
        (lambda: check_positive(a=1, b=0), "b must be positive and finite; got 0."),
        (lambda: check_positive(b=math.inf), "b must be positive and finite; got inf."),
        (lambda: check_positive(b=math.nan), "b must be positive and finite; got nan."),
        (lambda: check_in("[0, 1)", p=1), "p must be in [0, 1); got 1."),
        (lambda: check_in("[0, 1)", q=0.5, p=-0.1), "p must be in [0, 1); got -0.1."),
        (lambda: check_in("(0, 1]", p=0.0), "p must be in (0, 1]; got 0.0."),
        (lambda: check_in("(0, 1]", p=1.1), "p must be in (0, 1]; got 1.1."),
        (lambda: check_in("[0, 1]", p=math.nan), "p must be in [0, 1]; got nan."),
    ],
)
def test_others_are_refused_by_name(check, message):
    with pytest.raises(ValueError) as refused:
        check()
    assert str(refused.value) == message
