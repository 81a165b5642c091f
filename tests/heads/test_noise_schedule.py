"""Noise schedules: forward process, Gaussian reverse step, formulas, and the steps visited."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calmkit.heads.prediction import VelocityPrediction
from calmkit.heads.schedule import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    ZeroTerminalSNR,
)

betas = st.lists(st.floats(1e-4, 0.999), min_size=1, max_size=6).map(torch.tensor)


@given(betas)
def test_forward_moments_are_those_of_the_chain(betas):
    """x <- sqrt(1 - beta) x + sqrt(beta) eps, step by step, for mean factor and variance."""
    schedule = NoiseSchedule(betas)
    factor, variance = 1.0, 0.0
    for t, beta in enumerate(betas.tolist()):
        factor, variance = factor * math.sqrt(1 - beta), (1 - beta) * variance + beta
        step = torch.tensor([t])
        tables = torch.stack([schedule.signal_scale, schedule.noise_scale])
        signal, spread = schedule.at(tables, step, torch.ones(1, 1))
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
        got = schedule.posterior_of_clean[t] * clean + schedule.posterior_of_noisy[t] * noisy
        assert float(got) == pytest.approx(mean, rel=1e-7, abs=1e-7)
        assert float(schedule.posterior_variance[t]) == pytest.approx(variance, rel=1e-6)


def test_first_step_back_lands_on_the_clean_vector():
    schedule = CosineSchedule(10)
    assert float(schedule.posterior_of_clean[0]) == pytest.approx(1, rel=1e-12)
    assert schedule.posterior_of_noisy[0] == 0
    assert schedule.posterior_variance[0] == 0


@pytest.mark.parametrize("length", [1, 7, 1000])
def test_cosine_formula(length):
    def f(t):
        return math.cos((t / length + 0.008) / 1.008 * math.pi / 2) ** 2

    want = torch.tensor([min(1 - f(t + 1) / f(t), 0.999) for t in range(length)])
    schedule = CosineSchedule(length)
    torch.testing.assert_close(schedule.betas, want)
    for t in range(length - 1):
        assert float(schedule.alphas_bar[t]) == pytest.approx(f(t + 1) / f(0))


def respaced(schedule, length):
    return schedule.visiting(schedule.even_steps(length))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 99, 100])
def test_respaced_agrees_at_the_steps_it_visits(length):
    full = CosineSchedule(100)
    short = respaced(full, length)
    assert len(short) == length and short.full_length == 100
    assert int(short.steps[-1]) == 99
    assert length == 1 or int(short.steps[0]) == 0
    assert (short.steps.diff() > 0).all()
    torch.testing.assert_close(short.alphas_bar, full.alphas_bar[short.steps])
    # Evenly: no gap is more than one step longer than another.
    if length > 1:
        assert short.steps.diff().max() - short.steps.diff().min() <= 1


def test_respaced_twice():
    twice = respaced(respaced(CosineSchedule(100), 34), 12)
    torch.testing.assert_close(twice.alphas_bar, CosineSchedule(100).alphas_bar[twice.steps])
    assert twice.full_length == 100


def test_least_variance():
    schedule = NoiseSchedule(torch.tensor([0.1, 0.2, 0.5]))
    variance = schedule.posterior_variance
    want = torch.stack([variance[1], variance[1], variance[2]])
    assert torch.equal(schedule.least_variance, want)
    assert NoiseSchedule(torch.tensor([0.3])).least_variance.tolist() == [0.3]


@given(betas)
def test_scales_and_signal_to_noise(betas):
    schedule = NoiseSchedule(betas)
    for t, abar in enumerate(schedule.alphas_bar.tolist()):
        assert float(schedule.signal_scale[t]) == pytest.approx(math.sqrt(abar))
        assert float(schedule.noise_scale[t]) == pytest.approx(math.sqrt(1 - abar))
        assert float(schedule.snr[t]) == pytest.approx(abar / (1 - abar))
        assert float(schedule.log_snr[t]) == pytest.approx(math.log(abar) - math.log(1 - abar))


@pytest.mark.parametrize("length", [11, 30, 1000])
def test_linear_formula(length):
    schedule = LinearSchedule(length, first=2e-4, last=0.01)
    step = (0.01 - 2e-4) / max(length - 1, 1)
    want = torch.tensor([1000 / length * (2e-4 + t * step) for t in range(length)])
    torch.testing.assert_close(schedule.betas, want)


def test_linear_ends_alike_at_any_length():
    """log abar_T = sum log(1 - beta), which the factor 1000 / length keeps at about -10."""
    ends = [float(LinearSchedule(n).alphas_bar[-1].log()) for n in (100, 1000, 10_000)]
    assert all(-11 < end < -10 for end in ends), ends


@given(st.integers(2, 40))
def test_zero_terminal_snr_is_a_loop(length):
    schedule = CosineSchedule(length)
    scale = [math.sqrt(abar) for abar in schedule.alphas_bar.tolist()]
    factor = scale[0] / (scale[0] - scale[-1])
    want = torch.tensor([(factor * (s - scale[-1])) ** 2 for s in scale])
    rescaled = ZeroTerminalSNR(schedule)
    torch.testing.assert_close(rescaled.alphas_bar, want)
    torch.testing.assert_close(rescaled.alphas_bar[0], schedule.alphas_bar[0])
    assert rescaled.alphas_bar[-1] == 0 and rescaled.betas[-1] == 1
    assert rescaled.snr[-1] == 0 and rescaled.log_snr[-1] == -math.inf


def test_zero_terminal_snr_keeps_which_steps_they_are():
    short = respaced(CosineSchedule(100), 7)
    rescaled = ZeroTerminalSNR(short)
    assert torch.equal(rescaled.steps, short.steps) and rescaled.full_length == 100
    assert torch.equal(rescaled.times, short.steps / 100)
    # And of a schedule with a silent end each part has one.
    assert respaced(ZeroTerminalSNR(CosineSchedule(100)), 7).alphas_bar[-1] == 0


@given(st.integers(1, 60), st.data())
def test_steps_visited(length, data):
    schedule = CosineSchedule(length)
    count = data.draw(st.integers(1, length))
    even, trailing = schedule.even_steps(count), schedule.trailing_steps(count)
    assert trailing.tolist() == [k * length // count - 1 for k in range(1, count + 1)]
    for steps in (even, trailing):
        assert len(steps) == count and int(steps[-1]) == length - 1
        assert int(steps[0]) >= 0 and (steps.diff() > 0).all()
        assert count < 2 or steps.diff().max() - steps.diff().min() <= 1
        chain = schedule.visiting(steps)
        torch.testing.assert_close(chain.alphas_bar, schedule.alphas_bar[steps])
        assert torch.equal(chain.steps, steps)
    assert count == 1 or int(even[0]) == 0


def test_built_on_the_cpu_whatever_the_default():
    """A head that is built without memory still has its numbers."""
    with torch.device("meta"):
        schedule = ZeroTerminalSNR(LinearSchedule(30))
        chain = schedule.visiting(schedule.trailing_steps(3))
    assert chain.betas.device.type == chain.steps.device.type == "cpu"


def test_single_precision_keeps_small_noise_levels():
    """b_0 = 0.0064 is read from float64, not from 1 - abar in single precision (7e-4 off)."""
    schedule = CosineSchedule()
    noise = torch.ones(1, 1, dtype=torch.float32)
    got = schedule.at(schedule.noise_scale, torch.tensor([0]), noise)
    torch.testing.assert_close(got.double()[0], schedule.noise_scale[:1], rtol=1e-7, atol=0.0)


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("diffusers")
        from diffusers.schedulers import scheduling_ddim, scheduling_ddpm
    scheduling_ddpm.rescale_zero_terminal_snr = scheduling_ddim.rescale_zero_terminal_snr
    return scheduling_ddpm


@pytest.mark.parametrize(
    "name, schedule",
    [("squaredcos_cap_v2", CosineSchedule()), ("linear", LinearSchedule())],
)
def test_against_diffusers(diffusers, name, schedule):
    """It computes in single precision, so abar of its last steps is off by up to 1e-5."""
    theirs = diffusers.DDPMScheduler(beta_schedule=name)
    torch.testing.assert_close(theirs.betas.double(), schedule.betas, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        theirs.alphas_cumprod.double(), schedule.alphas_bar, rtol=1e-4, atol=1e-7
    )
    clean, noise = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([0, 1, 10, 200, 500, 700, 900, 990, 999])
    theirs.alphas_cumprod = schedule.alphas_bar  # now for the formulas, in double precision
    a, b = schedule.signal_scale[step, None], schedule.noise_scale[step, None]
    torch.testing.assert_close(a * clean + b * noise, theirs.add_noise(clean, noise, step))
    torch.testing.assert_close(
        VelocityPrediction().target(clean, noise, a, b), theirs.get_velocity(clean, noise, step)
    )


@pytest.mark.parametrize("schedule", [CosineSchedule(50), LinearSchedule()])
def test_zero_terminal_snr_against_diffusers(diffusers, schedule):
    want = diffusers.rescale_zero_terminal_snr(schedule.betas)
    torch.testing.assert_close(ZeroTerminalSNR(schedule).betas, want)


@pytest.mark.parametrize("betas", [[], [0.0], [1.0, 0.5], [1.1], [-0.1], [math.nan]])
def test_betas_out_of_range(betas):
    with pytest.raises(ValueError, match=r"betas must be a vector of numbers in \(0, 1\)"):
        NoiseSchedule(torch.tensor(betas))


def test_lengths_out_of_range():
    for build in (CosineSchedule, LinearSchedule):
        with pytest.raises(ValueError, match="length must be at least 1; got 0"):
            build(0)
    schedule = CosineSchedule(10)
    for length in (0, 11):
        for choose in (schedule.even_steps, schedule.trailing_steps):
            with pytest.raises(ValueError, match=rf"length must be in \[1, 10\].*; got {length}"):
                choose(length)
    with pytest.raises(ValueError, match=r"below length / 1000 = 0.02.*got 0.0001 and 0.02"):
        LinearSchedule(20)
    with pytest.raises(ValueError, match="zero terminal SNR must have at least 2 steps; got 1"):
        ZeroTerminalSNR(CosineSchedule(1))
