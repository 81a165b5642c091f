"""Reverse samplers with optimal denoisers in closed form: exact laws, orders, other libraries.

For a Gaussian target the optimal denoiser is affine, so a sampler is an affine map of its noises,
known from its values at a basis: its law is computed, not drawn.
"""

import itertools
import math
import warnings

import pytest
import torch
from seeding import seeded

from calmkit.heads.reverse import DDIMSampler, DDPMSampler, Denoised, DPMSolverSampler
from calmkit.heads.schedule import CosineSchedule, NoiseSchedule, ZeroTerminalSNR

MEAN = torch.tensor([1.0, -2.0])
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 1.2]])
SILENT = ZeroTerminalSNR(CosineSchedule(100))
SAMPLERS = [DDPMSampler(7), DDIMSampler(7), DDIMSampler(7, eta=0.6), DPMSolverSampler(7)]


def gain(abar):
    """a C (a^2 C + b^2 I)^-1: the slope of E[x | x_t] in x_t - a MEAN."""
    spread = abar * COVARIANCE + (1 - abar) * torch.eye(2)
    return abar.sqrt() * COVARIANCE @ torch.linalg.inv(spread)


def gaussian(schedule, fraction=0.0):
    """The optimal denoiser of N(MEAN, COVARIANCE)."""

    def denoise(x, step):
        abar = schedule.alphas_bar[step]
        return Denoised(MEAN + (x - abar.sqrt() * MEAN) @ gain(abar).T, fraction)

    return denoise


def twisted(schedule):
    """Some smooth denoiser that is neither affine nor optimal, with its own variance."""

    def denoise(x, step):
        abar = schedule.alphas_bar[step]
        return Denoised((x * (2 - abar)).sin() + abar, 0.5 + 0.4 * x.cos())

    return denoise


def law(sampler, denoise, schedule):
    """Mean and covariance of what an affine sampler gives from standard normal noise."""
    inputs = 1 + sampler.noises
    directions = torch.eye(2 * inputs).view(2 * inputs, inputs, 2)
    basis = torch.cat([torch.zeros(1, inputs, 2), directions]).transpose(0, 1)
    out = sampler.sample_from(denoise, schedule, basis[0], basis[1:])
    slopes = out[1:] - out[0]
    return out[0], slopes.T @ slopes


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", [CosineSchedule(100), SILENT])
def test_ddpm_has_the_law_of_the_exact_recursion(schedule, fraction):
    """x_{t-1} ~ N(A x_t + c, var), with mean and covariance carried along, at few steps."""
    got_mean, got_covariance = law(DDPMSampler(6), gaussian(schedule, fraction), schedule)
    levels = schedule.alphas_bar[[0, 20, 40, 59, 79, 99]]
    mean, covariance = torch.zeros(2), torch.eye(2)
    for t in reversed(range(6)):
        abar, before = levels[t], levels[t - 1] if t > 0 else torch.tensor(1.0)
        beta = 1 - abar / before
        of_clean = beta * before.sqrt() / (1 - abar)
        of_noisy = (1 - before) * (1 - beta).sqrt() / (1 - abar)
        slope = of_clean * gain(abar) + of_noisy * torch.eye(2)
        mean = slope @ mean + of_clean * (MEAN - gain(abar) @ (abar.sqrt() * MEAN))
        covariance = slope @ covariance @ slope.T
        if t > 0:
            low = beta * (1 - before) / (1 - abar)
            covariance = covariance + low ** (1 - fraction) * beta**fraction * torch.eye(2)
    torch.testing.assert_close(got_mean, mean, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(got_covariance, covariance, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_has_the_law_of_the_exact_recursion(eta):
    """Equation 12: x' = a' clean + sqrt(b'^2 - s^2) eps + s noise, s from equation 16."""
    got_mean, got_covariance = law(DDIMSampler(5, eta), gaussian(SILENT), SILENT)
    levels = SILENT.alphas_bar[[19, 39, 59, 79, 99]]
    mean, covariance = torch.zeros(2), torch.eye(2)
    for t in reversed(range(5)):
        abar, before = levels[t], levels[t - 1] if t > 0 else torch.tensor(1.0)
        std = eta * ((1 - before) / (1 - abar) * (1 - abar / before)).sqrt()
        g = gain(abar)
        eps = (torch.eye(2) - abar.sqrt() * g) / (1 - abar).sqrt()
        slope = before.sqrt() * g + (1 - before - std**2).clamp_min(0).sqrt() * eps
        # The noise in x_t - a MEAN has mean 0: means move from a MEAN to a' MEAN.
        mean = before.sqrt() * MEAN + slope @ (mean - abar.sqrt() * MEAN)
        covariance = slope @ covariance @ slope.T + std**2 * torch.eye(2)
    torch.testing.assert_close(got_mean, mean, rtol=0.0, atol=1e-10)
    torch.testing.assert_close(got_covariance, covariance, rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_mean_is_exact_from_silent_start(sampler):
    """With zero terminal SNR noise is the right start, and few steps keep the mean; else not."""
    mean, _ = law(sampler, gaussian(SILENT), SILENT)
    torch.testing.assert_close(mean, MEAN, rtol=0.0, atol=1e-12)
    loud = NoiseSchedule(torch.full((100,), 0.01))  # abar ends at 0.37
    mean, _ = law(sampler, gaussian(loud), loud)
    assert (mean - MEAN).abs().max() > 1e-3


@pytest.mark.parametrize(
    "family, rate",
    [(DDPMSampler, 0.5), (DDIMSampler, 0.5), (DPMSolverSampler, 0.4)],
)
def test_law_converges_to_the_target(family, rate):
    """Twice the steps leave a half of the covariance's error.

    DPM-Solver leaves less, yet not a quarter over the whole way: the last moves, in log-SNR, stay
    as long as they were. Its error is 0.03 of DDIM's at 100 steps.
    """
    errors = []
    for steps in (100, 200, 400):
        schedule = ZeroTerminalSNR(CosineSchedule(steps))
        _, covariance = law(family(steps), gaussian(schedule), schedule)
        errors.append(float((covariance - COVARIANCE).abs().max()))
    ratios = [b / a for a, b in itertools.pairwise(errors)]
    assert all(ratio < 1.05 * rate for ratio in ratios), errors
    assert errors[0] < {DDPMSampler: 0.06, DDIMSampler: 0.03, DPMSolverSampler: 0.001}[family]


# A mixture in one dimension: weights, means and standard deviation of its parts.
WEIGHTS, MEANS, STD = torch.tensor([0.3, 0.7]), torch.tensor([-1.2, 0.8]), 0.5


def mixture(schedule):
    """Its optimal denoiser, E[x | x_t]: parts weighted by how well each explains x_t."""

    def denoise(x, step):
        abar = schedule.alphas_bar[step]
        spread = abar * STD**2 + 1 - abar
        residual = x[..., None] - abar.sqrt() * MEANS
        share = torch.softmax(WEIGHTS.log() - residual.square() / (2 * spread), dim=-1)
        parts = MEANS + abar.sqrt() * STD**2 / spread * residual
        return Denoised((share * parts).sum(dim=-1))

    return denoise


def test_mixture_denoiser_is_the_posterior_mean():
    """Against the integral over the clean x."""
    schedule = CosineSchedule(10)
    x = torch.linspace(-8, 8, 4001)
    density = (WEIGHTS * (-0.5 * ((x[:, None] - MEANS) / STD).square()).exp()).sum(dim=-1)
    noisy = torch.tensor([[-2.0], [0.1], [1.5]])
    for t in (0, 4, 9):
        a, b = schedule.signal_scale[t], schedule.noise_scale[t]
        joint = density * (-0.5 * ((noisy - a * x) / b).square()).exp()
        want = (joint * x).sum(dim=-1) / joint.sum(dim=-1)
        got = mixture(schedule)(noisy, torch.tensor(t)).clean
        torch.testing.assert_close(got[:, 0], want)


def normal_grid(points):
    """Nodes and weights for N(0, 1): the trapezoid rule, exact to rounding on smooth functions."""
    x = torch.linspace(-8.5, 8.5, points)
    weight = (-0.5 * x.square()).exp()
    return x, weight / weight.sum()


def test_ddpm_law_of_a_mixture_by_enumeration():
    """Two noises on a grid, pushed through the sampler, against the density carried by hand."""
    schedule = CosineSchedule(30)
    chain = schedule.alphas_bar[[0, 29]]
    nodes, weights = normal_grid(161)
    start, added = torch.meshgrid(nodes, nodes, indexing="ij")
    samples = DDPMSampler(2).sample_from(
        mixture(schedule), schedule, start.reshape(-1, 1), added.reshape(1, -1, 1)
    )
    got = torch.stack([samples, samples**2, samples**3, samples.cos()]).view(4, -1)
    got = got @ torch.outer(weights, weights).flatten()

    beta = 1 - chain[1] / chain[0]
    of_clean = beta * chain[0].sqrt() / (1 - chain[1])
    of_noisy = (1 - chain[0]) * (1 - beta).sqrt() / (1 - chain[1])
    variance = beta * (1 - chain[0]) / (1 - chain[1])
    clean = mixture(schedule)(nodes[:, None], torch.tensor(29)).clean[:, 0]
    centre = of_clean * clean + of_noisy * nodes
    x = torch.linspace(-4, 4, 8001)  # Fine: this density is narrow.
    density = weights @ (-((x - centre[:, None]).square()) / (2 * variance)).exp()
    density = density / density.sum()
    last = mixture(schedule)(x[:, None], torch.tensor(0)).clean[:, 0]
    want = torch.stack([last, last**2, last**3, last.cos()]) @ density
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-10)


def arc(steps):
    """Levels a = cos(angle), evenly spaced in the angle from 1.5 down to 0.2."""
    alphas_bar = torch.linspace(0.2, 1.5, steps).cos().square()
    return NoiseSchedule(1 - alphas_bar / torch.cat([torch.ones(1), alphas_bar[:-1]]))


def uniform_log_snr(steps):
    alphas_bar = torch.linspace(4.0, -5.0, steps).sigmoid()
    return NoiseSchedule(1 - alphas_bar / torch.cat([torch.ones(1), alphas_bar[:-1]]))


def flow_of_gaussian(schedule, x):
    """The probability flow keeps S^-1 (x_t - a MEAN), S^2 the covariance of x_t."""

    def root(t, power):
        abar = schedule.alphas_bar[t]
        values, vectors = torch.linalg.eigh(abar * COVARIANCE + (1 - abar) * torch.eye(2))
        return vectors @ values.pow(power).diag() @ vectors.T

    scale = schedule.signal_scale
    return scale[0] * MEAN + (x - scale[-1] * MEAN) @ root(-1, -0.5) @ root(0, 0.5)


def flow_of_mixture(schedule, x):
    """In one dimension the probability flow keeps quantiles."""

    def below(x, t):
        abar = schedule.alphas_bar[t]
        z = (x - abar.sqrt() * MEANS) / (abar * STD**2 + 1 - abar).sqrt()
        return (WEIGHTS * torch.special.ndtr(z)).sum(dim=-1, keepdim=True)

    want = below(x, -1)
    low, high = torch.full_like(x, -20.0), torch.full_like(x, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        low = torch.where(below(middle, 0) < want, middle, low)
        high = torch.where(below(middle, 0) < want, high, middle)
    return low


@pytest.mark.parametrize("levels", [arc, uniform_log_snr])
@pytest.mark.parametrize(
    "problem, flow", [(gaussian, flow_of_gaussian), (mixture, flow_of_mixture)]
)
@pytest.mark.parametrize("family, order", [(DDIMSampler, 1), (DPMSolverSampler, 2)])
def test_order_of_convergence(family, order, problem, flow, levels):
    """To the exact probability flow between the first and last level; the last estimate is D."""
    x = torch.linspace(-2, 2, 9)[:, None]
    x = x.expand(9, 2) if problem is gaussian else x
    errors = []
    for steps in (80, 160, 320, 640):
        schedule = levels(steps)
        denoise = problem(schedule)
        want = denoise(flow(schedule, x), torch.tensor(0)).clean
        got = family(steps).sample_from(denoise, schedule, x)
        errors.append(float((got - want).abs().max()))
    measured = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert abs(measured[-1] - order) < 0.1, (measured, errors)
    assert all(abs(m - order) < 0.35 for m in measured), (measured, errors)


def test_ddim_with_all_its_noise_is_ddpm():
    schedule = CosineSchedule(12)
    start = torch.randn(5, 2, generator=seeded())
    noise = torch.randn(11, 5, 2, generator=seeded(1))
    denoise = twisted(schedule)

    def small(x, step):
        return Denoised(denoise(x, step).clean)

    torch.testing.assert_close(
        DDIMSampler(12, eta=1.0).sample_from(denoise, schedule, start, noise),
        DDPMSampler(12).sample_from(small, schedule, start, noise),
    )


def test_ddpm_with_varying_variance_is_a_loop():
    schedule = CosineSchedule(12)
    start, noise = torch.randn(5, 2, generator=seeded()), torch.randn(3, 5, 2, generator=seeded(1))
    kept = [0, 4, 7, 11]
    x = start
    for k in (3, 2, 1, 0):
        abar = schedule.alphas_bar[kept[k]]
        before = schedule.alphas_bar[kept[k - 1]] if k > 0 else torch.tensor(1.0)
        beta = 1 - abar / before
        said = twisted(schedule)(x, torch.tensor(kept[k]))
        mean = beta * before.sqrt() / (1 - abar) * said.clean
        mean = mean + (1 - before) * (1 - beta).sqrt() / (1 - abar) * x
        low, f = beta * (1 - before) / (1 - abar), said.variance_fraction
        x = mean if k == 0 else mean + (beta**f * low ** (1 - f)).sqrt() * noise[3 - k]
    got = DDPMSampler(4).sample_from(twisted(schedule), schedule, start, noise)
    torch.testing.assert_close(got, x)


def test_dpm_solver_is_algorithm_2():
    """In the paper's letters: lambda = log(alpha / sigma), r = h_before / h."""
    schedule = CosineSchedule(13)  # 13 / 5 is no integer: strides differ
    kept = [12, 9, 6, 4, 1]
    start = torch.randn(5, 2, generator=seeded())
    alpha, sigma = schedule.signal_scale, schedule.noise_scale
    lam = (alpha / sigma).log()
    x, data = start, []
    for i, t in enumerate(kept):
        data.append(twisted(schedule)(x, torch.tensor(t)).clean)
        if i == len(kept) - 1:
            x = data[i]  # sigma = 0, where h is infinite
            continue
        u = kept[i + 1]
        h, d = lam[u] - lam[t], data[i]
        if i > 0:
            r = (lam[t] - lam[kept[i - 1]]) / h
            d = (1 + 1 / (2 * r)) * data[i] - 1 / (2 * r) * data[i - 1]
        x = sigma[u] / sigma[t] * x - alpha[u] * ((-h).exp() - 1) * d
    got = DPMSolverSampler(5).sample_from(twisted(schedule), schedule, start)
    torch.testing.assert_close(got, x)


@pytest.mark.parametrize("family", [DDPMSampler, DDIMSampler, DPMSolverSampler])
def test_one_step_is_the_estimate(family):
    start = torch.randn(5, 2, generator=seeded())
    for schedule in (CosineSchedule(100), SILENT):
        want = gaussian(schedule)(start, torch.tensor(99)).clean
        torch.testing.assert_close(
            family(1).sample_from(gaussian(schedule), schedule, start), want
        )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_counts_and_steps_are_as_said(sampler):
    calls, draws = [], []

    def denoise(x, step):
        calls.append(int(step))
        return gaussian(SILENT)(x, step)

    def draw():
        draws.append(1)
        return torch.zeros(5, 2)

    sampler.run(denoise, SILENT, torch.zeros(5, 2), draw)
    assert len(calls) == sampler.evaluations == 7
    assert len(draws) == sampler.noises
    assert calls == sampler.visited(SILENT).tolist()[::-1]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_kept(sampler, dtype):
    start = torch.zeros(5, 2, dtype=dtype)
    noise = torch.zeros(sampler.noises, 5, 2, dtype=dtype)
    got = sampler.sample_from(lambda x, _: Denoised(x), SILENT, start, noise)
    assert got.dtype == dtype


def test_bad_settings_are_named():
    for family in (DDPMSampler, DDIMSampler, DPMSolverSampler):
        with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
            family(0)
        with pytest.raises(ValueError, match=r"length must be in \[1, 100\].*; got 101"):
            family(101).sample_from(
                gaussian(SILENT), SILENT, torch.zeros(1, 2), torch.zeros(family(101).noises, 1, 2)
            )
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"eta must be in \[0, 1\]; got {eta}"):
            DDIMSampler(3, eta)
    start = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="noise must hold 2 draws; got 0"):
        DDPMSampler(3).sample_from(gaussian(SILENT), SILENT, start)
    with pytest.raises(ValueError, match="noise must hold 0 draws; got 2"):
        DPMSolverSampler(3).sample_from(gaussian(SILENT), SILENT, start, torch.zeros(2, 1, 2))


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("diffusers")
        assert library.DDPMScheduler and library.DDIMScheduler  # imported on first use
        assert library.DPMSolverMultistepScheduler
    return library


def theirs(family, schedule, **settings):
    """A scheduler of that library with our abar in double precision: it keeps single."""
    scheduler = family(
        num_train_timesteps=len(schedule), prediction_type="sample", clip_sample=False, **settings
    )
    scheduler.alphas_cumprod = schedule.alphas_bar
    return scheduler


def followed(scheduler, denoise, x, **arguments):
    for t in scheduler.timesteps:
        x = scheduler.step(denoise(x, t).clean, int(t), x, **arguments).prev_sample
    return x


def test_ddpm_against_diffusers(diffusers):
    schedule = CosineSchedule(20)
    scheduler = theirs(diffusers.DDPMScheduler, schedule, variance_type="fixed_small")
    scheduler.set_timesteps(20)
    start = torch.randn(5, 2, generator=seeded())
    want = followed(scheduler, gaussian(schedule), start, generator=seeded(1))
    generator = seeded(1)
    noise = torch.stack([torch.randn(5, 2, generator=generator) for _ in range(19)])
    got = DDPMSampler(20).sample_from(gaussian(schedule), schedule, start, noise)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_against_diffusers(diffusers, eta):
    schedule = CosineSchedule(100)
    scheduler = theirs(diffusers.DDIMScheduler, schedule, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    start = torch.randn(5, 2, generator=seeded())
    want = followed(scheduler, gaussian(schedule), start, eta=eta, generator=seeded(1))
    generator = seeded(1)
    sampler = DDIMSampler(10, eta)
    noise = torch.stack([torch.randn(5, 2, generator=generator) for _ in range(9)])
    got = sampler.sample_from(gaussian(schedule), schedule, start, noise[: sampler.noises])
    torch.testing.assert_close(got, want)


def test_dpm_solver_against_diffusers(diffusers):
    schedule = CosineSchedule(100)
    sampler = DPMSolverSampler(9)
    visited = sampler.visited(schedule).flip(0)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=100, prediction_type="sample", solver_order=2
    )
    with warnings.catch_warnings():  # it hands a tensor to numpy
        warnings.simplefilter("ignore")
        scheduler.set_timesteps(timesteps=visited.tolist())
    sigmas = schedule.noise_scale[visited] / schedule.signal_scale[visited]
    scheduler.sigmas = torch.cat([sigmas, torch.zeros(1)])
    start = torch.randn(5, 2, generator=seeded())
    want = followed(scheduler, gaussian(schedule), start)
    got = sampler.sample_from(gaussian(schedule), schedule, start)
    # Its steps are cast to single precision and back.
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)
