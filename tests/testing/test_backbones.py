"""The suite of backbones rejects what is broken, says how, and accepts what is strange."""

import pytest
from backbone_mutants import MUTANTS, STRANGE, Right
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of

from calmkit.testing import check_part


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("backbone", MUTANTS)],
)
def test_a_broken_backbone_is_rejected(contract, name, mutant, words):
    assert_rejected("backbone", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("backbone", MUTANTS) == set()


@pytest.mark.parametrize("backbone", [Right, *STRANGE], ids=lambda kind: kind.__name__)
def test_a_right_backbone_is_accepted(backbone):
    assert_accepted("backbone", backbone)


def test_a_backbone_without_cache_says_why_its_contracts_do_not_apply():
    report = check_part("backbone", STRANGE[0], only=["cached_is_the_same"], profile="quick")
    (result,) = report.results
    assert result.status == "does not apply" and "reads whole rows only" in result.reason
    assert not report.passed  # nothing else ran
