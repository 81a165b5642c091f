"""A large head is tried with less work, and trained in steps that suit its width."""

import pytest
import torch
from right_head import Right

from calmkit.heads import DiffusionHead
from calmkit.testing import check_part
from calmkit.testing.heads import learning
from calmkit.testing.heads.trial import LATENT, HeadTrial
from calmkit.testing.profiles import PROFILES


class Sampled(Right):
    """As one whose samples take many evaluations of its network."""

    evaluations_per_sample = 100


def trial_of(factory, profile="quick"):
    return HeadTrial(factory, PROFILES[profile], 0)


def wide(cond, latent):
    return Sampled(cond, latent, width=100_000)


def test_rows_and_examples_are_fewer_for_a_large_head():
    trial = trial_of(wide)
    size = sum(parameter.numel() for parameter in trial.build().parameters())
    assert trial.rows(trial.build()) == int(0.03 * 1e11 / size)
    assert trial.rows(trial.build(), samples=2) == 100
    tried = []
    trial.search(lambda st: st.integers(), tried.append)
    assert len(tried) == 8 == int(1e11 / (100 * 100 * size))


def test_a_small_head_and_the_profile_deep_keep_all_of_it():
    head = Right(5, LATENT)
    for profile in PROFILES:
        assert trial_of(Right, profile).rows(head, samples=2) == PROFILES[profile].rows
    assert trial_of(wide, "deep").rows(wide(5, LATENT), samples=2) == 200_000


def test_what_would_take_minutes_is_left_to_the_profile_deep():
    names = ["learns_two_moons", "density_integrates_to_one", "samples_follow_the_density"]
    report = check_part("head", wide, only=names)
    assert {result.status for result in report.results} == {"does not apply"}
    for result in report.results:
        assert "parameters would take minutes: give a factory with small" in result.reason
    assert learning.learns_two_moons.applies(trial_of(wide, "deep")) is None


def test_many_evaluations_are_traced_from_the_profile_standard_on():
    name = "sampling_compiles"
    (result,) = check_part("head", Sampled, only=[name], profile="quick").results
    assert result.reason == "100 evaluations are traced one by one: from the profile standard on"
    assert check_part("head", Sampled, only=[name], profile="standard").passed


def test_a_wide_network_does_not_overflow():
    # Steps that make a narrow network lively gave this one samples of NaN.
    names = ["same_seed_same_numbers"]
    assert check_part("head", DiffusionHead, only=names, profile="quick").passed


def test_a_head_is_trained_once_for_many_contracts():
    built = []

    class Counted(Right):
        def loss(self, cond, target, generator=None):
            built.append(len(cond))
            return super().loss(cond, target, generator)

    names = ["the_condition_is_read", "same_seed_same_numbers", "positions_do_not_mix"]
    assert check_part("head", Counted, only=names, profile="quick").passed
    assert built.count(8) == 10


def test_a_head_that_cannot_be_copied_is_trained_again():
    class Uncopied(Right):
        def __deepcopy__(self, memo):
            raise RuntimeError("not this one")

    names = ["the_condition_is_read", "same_seed_same_numbers"]
    assert check_part("head", Uncopied, only=names, profile="quick").passed


def test_a_training_that_was_too_short_is_repeated_longer(monkeypatch):
    steps = []
    distances = iter([0.03, 0.01])

    def trained(trial, outcome, generator, count):
        steps.append(count)
        return trial.build(latent=2, cond=2)

    monkeypatch.setattr(learning, "_trained", trained)
    monkeypatch.setattr(learning, "energy_distance", lambda *laws: next(distances))
    assert check_part("head", Right, only=["learns_two_moons"]).passed
    assert steps == [400, 1_000]


@pytest.mark.parametrize("missing", [0.99, 1.03])
def test_a_density_may_miss_one_by_one_per_cent_and_not_by_three(missing):
    class Scaled(Right):
        def log_prob(self, cond, latents):
            return super().log_prob(cond, latents) + torch.tensor(missing).log()

    report = check_part("head", Scaled, only=["density_integrates_to_one"], profile="quick")
    assert report.passed == (missing == 0.99)
