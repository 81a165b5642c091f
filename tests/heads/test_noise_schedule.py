"""Noise schedules: the forward process, its Gaussian reverse step, the cosine and respacing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.heads import NoiseSchedule

betas = st.lists(st.floats(1e-4, 0.999), min_size=1, max_size=6).map(torch.tensor)


@given(betas)
def test_forward_moments_are_those_of_the_chain(betas):
    """x <- sqrt(1 - beta) x + sqrt(beta) eps, step by step, for mean factor and variance."""
    schedule = NoiseSchedule(betas)
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(betas.tolist()):
        factor, variance = factor * math.sqrt(1 - beta), (1 - beta) * variance + beta
        step = torch.tensor([t])
        signal = schedule.add_noise(torch.ones(1, 1), torch.zeros(1, 1), step)
        spread = schedule.add_noise(torch.zeros(1, 1), torch.ones(1, 1), step)
        assert float(signal) == pytest.approx(factor)
        assert float(spread) ** 2 == pytest.approx(variance)


@given(betas, st.floats(-3, 3), st.floats(-3, 3))
def test_reverse_step_by_gaussian_conditioning(betas, clean, noisy):
    """x_{t-1} given x and x_t, from the joint covariance of (x_{t-1}, x_t) given x."""
    schedule = NoiseSchedule(betas)
    for t in range(1, len(betas)):
        beta, before = float(betas[t]), float(schedule.alphas_bar[t - 1])
        var_before, factor = 1 - before, math.sqrt(1 - beta)
        var_now, covariance = factor**2 * var_before + beta, factor * var_before
        mean_before = math.sqrt(before) * clean
        mean = mean_before + covariance / var_now * (noisy - factor * mean_before)
        variance = var_before - covariance**2 / var_now
        got = schedule.posterior_mean(
            torch.tensor([[clean]]), torch.tensor([[noisy]]), torch.tensor([t])
        )
        assert float(got) == pytest.approx(mean, rel=1e-7, abs=1e-7)
        assert float(schedule.posterior_variance[t]) == pytest.approx(variance, rel=1e-6)


def test_first_step_back_lands_on_the_clean_vector():
    schedule = NoiseSchedule.cosine(10)
    clean, noisy = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    first = torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(schedule.posterior_mean(clean, noisy, first), clean)
    assert schedule.posterior_variance[0] == 0


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_cosine_formula(length):
    def f(t):
        return math.cos((t / length + 0.008) / 1.008 * math.pi / 2) ** 2

    want = torch.tensor([min(1 - f(t + 1) / f(t), 0.999) for t in range(length)])
    schedule = NoiseSchedule.cosine(length)
    torch.testing.assert_close(schedule.betas, want)
    for t in range(length - 1):
        assert float(schedule.alphas_bar[t]) == pytest.approx(f(t + 1) / f(0))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 99, 100])
def test_respaced_agrees_at_the_steps_it_visits(length):
    full = NoiseSchedule.cosine(100)
    short = full.respaced(length)
    assert len(short) == length and short.full_length == 100
    assert int(short.steps[-1]) == 99
    assert length == 1 or int(short.steps[0]) == 0
    assert (short.steps.diff() > 0).all()
    torch.testing.assert_close(short.alphas_bar, full.alphas_bar[short.steps])
    # Evenly: no gap is more than one step longer than another.
    if length > 1:
        assert short.steps.diff().max() - short.steps.diff().min() <= 1


def test_respaced_twice():
    twice = NoiseSchedule.cosine(100).respaced(34).respaced(12)
    torch.testing.assert_close(twice.alphas_bar, NoiseSchedule.cosine(100).alphas_bar[twice.steps])
    assert twice.full_length == 100


def test_least_variance():
    schedule = NoiseSchedule(torch.tensor([0.1, 0.2, 0.5]))
    variance = schedule.posterior_variance
    want = torch.stack([variance[1], variance[1], variance[2]])
    assert torch.equal(schedule.least_variance, want)
    assert NoiseSchedule(torch.tensor([0.3])).least_variance.tolist() == [0.3]


@pytest.mark.parametrize("betas", [[], [0.0], [0.5, 1.0], [-0.1], [math.nan]])
def test_betas_out_of_range(betas):
    with pytest.raises(ValueError, match=r"betas must be a vector of numbers in \(0, 1\)"):
        NoiseSchedule(torch.tensor(betas))


def test_lengths_out_of_range():
    with pytest.raises(ValueError, match="length must be at least 1; got 0"):
        NoiseSchedule.cosine(0)
    for length in (0, 11):
        with pytest.raises(ValueError, match=rf"length must be in \[1, 10\]; got {length}"):
            NoiseSchedule.cosine(10).respaced(length)
