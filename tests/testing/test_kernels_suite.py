"""The suite of kernels rejects what is broken, says how, and accepts what is strange."""

import pytest
from kernel_mutants import MUTANTS, STRANGE, Right
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("kernel", MUTANTS)],
)
def test_a_broken_kernel_is_rejected(contract, name, mutant, words):
    assert_rejected("kernel", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("kernel", MUTANTS) == set()


@pytest.mark.parametrize("kernel", [Right, *STRANGE], ids=lambda kind: kind.__name__)
def test_a_right_kernel_is_accepted(kernel):
    assert_accepted("kernel", kernel)
