"""Each suite rejects what is broken, says how, and accepts what is right or only strange."""

import attention_mutants
import autoencoder_mutants
import backbone_mutants
import encoder_mutants
import head_mutants
import kernel_mutants
import noise_mutants
import pytest
import rule_mutants
import sampler_mutants
import solver_mutants
import torch
from rejecting import assert_accepted, assert_rejected, contracts_with_too_few, mutants_of

from calmkit.testing import check_part

# The profiles are those under which a right part, and the strange ones, are accepted.
SUITES = {
    "attention": (attention_mutants, "quick", "quick"),
    "autoencoder": (autoencoder_mutants, "quick", "quick"),
    "backbone": (backbone_mutants, "quick", "quick"),
    "head": (head_mutants, "standard", "quick"),
    "input_encoder": (encoder_mutants, "quick", "quick"),
    "kernel": (kernel_mutants, "quick", "quick"),
    "noise": (noise_mutants, "standard", "standard"),
    "rule": (rule_mutants, "standard", "quick"),
    "sampler": (sampler_mutants, "standard", "quick"),
    "solver": (solver_mutants, "quick", "quick"),
}
SLOW_MUTANTS = {"head": head_mutants.SLOW_MUTANTS}


def broken_parts():
    for kind, (parts, *_) in SUITES.items():
        for table, profile in ((parts.MUTANTS, "quick"), (SLOW_MUTANTS.get(kind, {}), "standard")):
            for contract, name, mutant, words in mutants_of(table):
                row = kind, contract, mutant, words, profile
                yield pytest.param(*row, id=f"{kind}-{contract}-{name}")


def accepted_parts():
    for kind, (parts, right, strange) in SUITES.items():
        for number, (part, exempt) in enumerate(parts.ACCEPTED.items()):
            row = kind, part, exempt, strange if number else right
            yield pytest.param(*row, id=f"{kind}-{part.__name__}")


@pytest.mark.parametrize(("kind", "contract", "mutant", "words", "profile"), [*broken_parts()])
def test_a_broken_part_is_rejected(kind, contract, mutant, words, profile):
    assert_rejected(kind, mutant, contract, words, profile)


@pytest.mark.parametrize("kind", SUITES)
def test_every_contract_is_broken_by_three(kind):
    mutants = SUITES[kind][0].MUTANTS | SLOW_MUTANTS.get(kind, {})
    assert contracts_with_too_few(kind, mutants) == set()


@pytest.mark.parametrize(("kind", "part", "exempt", "profile"), [*accepted_parts()])
def test_a_right_or_strange_part_is_accepted(kind, part, exempt, profile):
    assert_accepted(kind, part, profile, exempt)


def test_a_backbone_without_cache_says_why_its_contracts_do_not_apply():
    report = check_part(
        "backbone",
        backbone_mutants.WithoutCache,
        only=["cached_is_the_same"],
        profile="quick",
    )
    (result,) = report.results
    assert result.status == "does not apply" and "reads whole rows only" in result.reason
    assert not report.passed  # nothing else ran


def test_what_a_backend_refuses_does_not_apply_and_the_rest_is_run():
    report = check_part("attention", attention_mutants.refuses_much, profile="quick")
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
    report = check_part("attention", attention_mutants.only_on_a_gpu, profile="quick")
    assert {result.status for result in report.results} == {"does not apply"}
    reason = "it refuses a plain causal call: the tensors are on cpu"
    assert {result.reason for result in report.results} == {reason}
    assert not report.passed and "nothing ran and passed, which is a failure" in str(report)
