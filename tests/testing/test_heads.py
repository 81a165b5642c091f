"""The suite of heads rejects what is broken, says how, and accepts what is only strange."""

import head_gradient_mutants
import head_law_mutants
import head_precision_mutants
import head_randomness_mutants
import head_refusal_mutants
import head_shape_mutants
import pytest
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of
from right_head import Right
from strange_heads import STRANGE

MUTANTS = (
    head_shape_mutants.MUTANTS
    | head_gradient_mutants.MUTANTS
    | head_randomness_mutants.MUTANTS
    | head_precision_mutants.MUTANTS
    | head_refusal_mutants.MUTANTS
    | head_law_mutants.MUTANTS
)
SLOW_MUTANTS = head_law_mutants.SLOW_MUTANTS


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("head", MUTANTS)],
)
def test_a_broken_head_is_rejected(contract, name, mutant, words):
    assert_rejected("head", mutant, contract, words)


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("head", SLOW_MUTANTS)],
)
def test_a_head_that_cannot_learn_is_rejected(contract, name, mutant, words):
    assert_rejected("head", mutant, contract, words, profile="standard")


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("head", MUTANTS | SLOW_MUTANTS) == set()


def test_the_head_that_the_broken_ones_come_from_is_right():
    assert_accepted("head", Right, "standard", exempt=["learns_two_moons"])


@pytest.mark.parametrize("head", STRANGE, ids=lambda head: head.__name__)
def test_a_strange_head_is_accepted(head):
    assert_accepted("head", head, exempt=STRANGE[head])
