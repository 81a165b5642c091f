"""The suite of samplers rejects what is broken, says how, and accepts what is strange."""

import pytest
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of
from sampler_mutants import MUTANTS, STRANGE, Right


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("sampler", MUTANTS)],
)
def test_a_broken_sampler_is_rejected(contract, name, mutant, words):
    assert_rejected("sampler", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("sampler", MUTANTS) == set()


def test_the_sampler_that_the_broken_ones_come_from_is_right():
    assert_accepted("sampler", Right, "standard")


@pytest.mark.parametrize("sampler", STRANGE, ids=lambda sampler: sampler.__name__)
def test_a_strange_sampler_is_accepted(sampler):
    assert_accepted("sampler", sampler, exempt=STRANGE[sampler])
