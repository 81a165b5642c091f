"""The suite of attention backends rejects what is broken and accepts what is strange."""

import pytest
import torch
from attention_mutants import MUTANTS, STRANGE, Right, only_on_a_gpu, refuses_much
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of

from calmkit.testing import check_part


@pytest.mark.parametrize(
    ("contract", "name", "mutant", "words"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}") for row in mutants_of("attention", MUTANTS)],
)
def test_a_broken_backend_is_rejected(contract, name, mutant, words):
    assert_rejected("attention", mutant, contract, words)


def test_every_contract_is_broken_by_three():
    assert contracts_with_too_few("attention", MUTANTS) == set()


@pytest.mark.parametrize("backend", [Right, *STRANGE], ids=lambda kind: kind.__name__)
def test_a_right_backend_is_accepted(backend):
    assert_accepted("attention", backend)


def test_what_a_backend_refuses_does_not_apply_and_the_rest_is_run():
    report = check_part("attention", refuses_much, profile="quick")
    found = {result.name: result for result in report.results}
    refused = ("padded_caches_are_the_formula", "dropout_keeps_the_mean",
               "neighbouring_heads_share_keys", "gradients_are_those_of_the_formula")  # fmt: skip
    for name in refused:
        assert found[name].status == "does not apply", name
    for name in ("full_and_causal_masks_are_the_formula", "low_precision_is_close", "compiles"):
        assert found[name].status == "passed", name


def test_a_backend_that_needs_a_gpu_says_so_and_has_not_passed():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    report = check_part("attention", only_on_a_gpu, profile="quick")
    assert {result.status for result in report.results} == {"does not apply"}
    reason = "it refuses a plain causal call: the tensors are on cpu"
    assert {result.reason for result in report.results} == {reason}
    assert not report.passed and "nothing ran and passed, which is a failure" in str(report)
