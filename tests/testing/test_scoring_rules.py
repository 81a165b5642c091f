"""The suite of scoring rules rejects what is broken, says how, and accepts what is strange."""

import pytest
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of
from rule_mutants import MUTANTS, STRANGE, Right


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("rule", MUTANTS)],
)
def test_a_broken_rule_is_rejected(contract, name, mutant, words):
    assert_rejected("rule", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("rule", MUTANTS) == set()


@pytest.mark.parametrize("rule", [Right, *STRANGE], ids=lambda rule: rule.__name__)
def test_a_right_rule_is_accepted(rule):
    assert_accepted("rule", rule, "standard")
