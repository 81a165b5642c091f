"""The mean of an estimate over trainings on the same text."""

import math

import pytest

from calmkit.metrics import Estimate


def test_is_its_formula():
    values, errors = [1.0, 2.0, 6.0], [0.3, 0.4, 0.5]
    each = [Estimate(x, error, (0.0, 9.0)) for x, error in zip(values, errors, strict=True)]
    found = Estimate.mean(each)
    of_text = sum(e * e for e in errors) / 3
    of_seeds = sum((x - 3.0) ** 2 for x in values) / 2 / 3
    assert found.value == pytest.approx(3.0) and found.interval is None
    assert found.standard_error == pytest.approx(math.sqrt(of_text + of_seeds))


def test_of_one_training_is_itself():
    one = Estimate(2.0, 0.5, (1.0, 3.0))
    assert Estimate.mean([one]) == one


def test_an_unknown_error_stays_unknown():
    found = Estimate.mean([Estimate(1.0, 0.1), Estimate(3.0, None)])
    assert found == Estimate(2.0, None)
