"""Sums, spread weights, sampled targets and pieces: against the rules that they are made of."""

import itertools

import pytest
import torch
from seeding import seeded
from torch.utils._python_dispatch import TorchDispatchMode

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import (
    ChunkedScore,
    EnergyScore,
    SampledTarget,
    ScoringRule,
    SpreadWeighted,
    WeightedSum,
    energy_score,
)


def problem(batch=(5,), latent=3, samples=4, std=0.5):
    x = torch.randn(samples, *batch, latent, generator=seeded(1))
    mean = torch.randn(*batch, latent, generator=seeded(2))
    return x, DiagonalGaussian(mean, torch.full_like(mean, std))


class SquaredError(ScoringRule):
    """||mean of the samples - y||^2 with a random shift added to y: proper at most, and noisy."""

    strictly_proper = False
    condition = "sees the mean only"
    noise_size = 1

    def score_from(self, samples, target, noise):
        error = (samples.mean(0) - target.mean - noise[0]).square() + target.std.square()
        return error.sum(-1)


# Sums


def test_sum_is_the_weighted_sum():
    x, target = problem()
    terms = EnergyScore(0.5), EnergyScore(1.5)
    got = WeightedSum(terms, (2.0, 0.25)).score(x, target)
    want = 2 * terms[0].score(x, target) + 0.25 * terms[1].score(x, target)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        WeightedSum(terms).score(x, target),
        terms[0].score(x, target) + terms[1].score(x, target),
    )


def test_terms_have_noise_of_their_own():
    x, target = problem()
    rule = WeightedSum([SquaredError(), EnergyScore(), SquaredError()])
    noise = torch.randn(2, 5, 3, generator=seeded(3))
    assert rule.noise_size == 2
    want = sum(SquaredError().score_from(x, target, n) for n in noise.split(1))
    torch.testing.assert_close(
        rule.score_from(x, target, noise), want + EnergyScore().score(x, target)
    )


@pytest.mark.parametrize(
    ("rules", "proper", "strictly"),
    [
        ([EnergyScore(), SquaredError()], True, True),
        ([SquaredError(), SquaredError()], True, False),
        ([EnergyScore(), SpreadWeighted(EnergyScore(), 0.5)], False, False),
    ],
)
def test_sum_is_strict_if_all_terms_are_proper_and_one_strictly(rules, proper, strictly):
    rule = WeightedSum(rules)
    assert (rule.proper, rule.strictly_proper) == (proper, strictly)
    assert all(term.condition in rule.condition for term in rules)


@pytest.mark.parametrize(
    ("rules", "weights", "message"),
    [
        ([], None, "rules must hold at least one rule"),
        ([EnergyScore()], [1.0, 2.0], "one weight for each of the 1 rules; got 2"),
        ([EnergyScore()], [0.0], "weight must be positive and finite; got 0.0"),
        ([EnergyScore()], [-1.0], "weight must be positive"),
    ],
)
def test_bad_sums(rules, weights, message):
    with pytest.raises(ValueError, match=message):
        WeightedSum(rules, weights)


# Spread weight


def expected(rule, p, q, support):
    """E over outcomes from p and pairs of samples from q, every one enumerated."""
    size = len(p)
    return sum(
        p[k] * q[i] * q[j] * rule.score(support[[i, j]], DiagonalGaussian.point_mass(support[k]))
        for k, i, j in itertools.product(range(size), repeat=3)
    )


def test_weight_one_is_the_rule_itself():
    x, target = problem()
    rule = SpreadWeighted(EnergyScore(1.3), 1.0)
    torch.testing.assert_close(rule.score(x, target), EnergyScore(1.3).score(x, target))
    assert rule.proper and rule.strictly_proper and rule.condition == EnergyScore(1.3).condition


@pytest.mark.parametrize(("weight", "width"), [(0.5, "too narrow"), (2.0, "too wide")])
def test_another_weight_is_not_proper(weight, width):
    """Three points in a row: the rival moves mass to the middle or to the ends, and wins."""
    rule = SpreadWeighted(EnergyScore(), weight)
    support = torch.tensor([[-1.0], [0.0], [1.0]])
    truth = torch.tensor([0.25, 0.5, 0.25])
    move = 0.05 if weight < 1 else -0.05
    rival = truth + torch.tensor([-move, 2 * move, -move])
    assert expected(rule, truth, rival, support) < expected(rule, truth, truth, support)
    assert not rule.proper and not rule.strictly_proper
    assert "not proper" in rule.condition and width in rule.condition


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_bad_spread_weight(weight):
    with pytest.raises(ValueError, match=r"weight must be in \[0, inf\)"):
        SpreadWeighted(EnergyScore(), weight)


# Sampled targets


@pytest.mark.parametrize("rule", [EnergyScore(0.7), SpreadWeighted(EnergyScore(), 0.5)])
def test_sampled_target_is_the_mean_over_its_draws(rule):
    x, target = problem()
    sampled = SampledTarget(rule, num_targets=6)
    noise = torch.randn(6, 5, 3, generator=seeded(4))
    want = torch.stack(
        [rule.score(x, DiagonalGaussian.point_mass(y)) for y in target.rsample_from(noise)]
    ).mean(0)
    torch.testing.assert_close(sampled.score_from(x, target, noise), want)


def test_a_rule_that_draws_keeps_its_noise():
    x, target = problem()
    sampled = SampledTarget(SquaredError(), num_targets=2)
    noise = torch.randn(3, 5, 3, generator=seeded(4))
    assert sampled.noise_size == 3
    want = sum(
        SquaredError().score_from(x, DiagonalGaussian.point_mass(y), noise[2:])
        for y in target.rsample_from(noise[:2])
    )
    torch.testing.assert_close(sampled.score_from(x, target, noise), want / 2)


def test_sampled_target_has_the_same_expectation():
    """Against the closed form: 20 000 positions of one problem; a wrong target is rejected."""
    x, target = problem(batch=())
    many = DiagonalGaussian(*(v.expand(20_000, 3) for v in (target.mean, target.std)))
    scores = SampledTarget(EnergyScore(), 2).score(
        x[:, None].expand(-1, 20_000, -1), many, seeded(5)
    )
    error = scores.std() / len(scores) ** 0.5
    assert (scores.mean() - EnergyScore().score(x, target)).abs() < 4.9 * error
    wrong = DiagonalGaussian(target.mean, 1.1 * target.std)
    assert (scores.mean() - EnergyScore().score(x, wrong)).abs() > 4.9 * error


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


@pytest.mark.parametrize(
    "rule",
    [EnergyScore(), SampledTarget(EnergyScore(), 16), SampledTarget(SquaredError(), 16)],
    ids=["closed", "pairwise", "any rule"],
)
def test_nothing_of_samples_times_targets_times_latent_is_held(rule):
    """Also in the backward pass."""
    batch, latent, samples, targets = 64, 32, 8, 16
    x, target = problem((batch,), latent, samples)
    x.requires_grad_()
    with LargestTensor() as largest:
        rule.score(x, target, seeded()).sum().backward()
    # Allowed: targets or nodes (not both) times samples or latent.
    assert largest.size < samples * targets * batch * latent / 2


# Pieces


def test_rule_sees_one_piece_at_a_time_and_again_in_the_backward_pass():
    seen = []

    class Recorded(SquaredError):
        def score_from(self, samples, target, noise):
            seen.append(samples.shape[1])
            return super().score_from(samples, target, noise)

    x, target = problem((2, 5))
    score = ChunkedScore(Recorded(), 4).score(x.requires_grad_(), target, seeded())
    assert seen == [4, 4, 2]
    score.sum().backward()
    assert sorted(seen) == [2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize("wrap", [ChunkedScore, SampledTarget])
def test_wrappers_state_what_the_rule_states(wrap):
    for rule in (EnergyScore(), SquaredError(), SpreadWeighted(EnergyScore(), 0.5)):
        wrapped = wrap(rule)
        for name in ("proper", "strictly_proper", "condition", "min_samples"):
            assert getattr(wrapped, name) == getattr(rule, name)


def test_bad_wrappers():
    with pytest.raises(ValueError, match="num_targets must be at least 1; got 0"):
        SampledTarget(EnergyScore(), 0)
    with pytest.raises(ValueError, match="positions must be at least 1; got 0"):
        ChunkedScore(EnergyScore(), 0)


def test_paper_loss_is_twice_the_sampled_score():
    """2/(NM) sum ||x_n - z_m|| - 1/(N(N-1)) sum_{n != k} ||x_n - x_k||, as a loop."""
    x, target = problem((), samples=5)
    noise = torch.randn(7, 3, generator=seeded(6))
    z = target.rsample_from(noise)
    loss = 2 * sum((a - b).norm() for a in x for b in z) / (5 * 7)
    loss = loss - sum((a - b).norm() for a in x for b in x) / (5 * 4)
    got = SampledTarget(EnergyScore(), 7).score_from(x, target, noise)
    torch.testing.assert_close(2 * got, loss)
    torch.testing.assert_close(got, torch.stack([energy_score(x, y) for y in z]).mean())
