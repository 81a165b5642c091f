"""The suite of solvers rejects what is broken, says how, and accepts what is strange."""

import pytest
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of
from solver_mutants import MUTANTS, STRANGE, Right


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("solver", MUTANTS)],
)
def test_a_broken_solver_is_rejected(contract, name, mutant, words):
    assert_rejected("solver", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("solver", MUTANTS) == set()


@pytest.mark.parametrize("solver", [Right, *STRANGE], ids=lambda kind: kind.__name__)
def test_a_right_solver_is_accepted(solver):
    assert_accepted("solver", solver)
