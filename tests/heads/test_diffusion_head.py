"""Diffusion head: the hybrid loss as a loop, and exact moments with the optimal network."""

import math

import pytest
import torch
from torch import nn

from calmkit.heads import CleanPrediction, DiffusionHead, NoisePrediction, VelocityPrediction

MEAN = torch.tensor([1.0, -2.0])
STD = torch.tensor([0.5, 1.5])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**changes):
    head = DiffusionHead(
        4, 2, **{"width": 5, "depth": 1, "steps": 8, "training_steps": 20, **changes}
    )
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(
                0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
            )
    return head


PREDICTIONS = (VelocityPrediction(), NoisePrediction(), CleanPrediction())


class Optimal(nn.Module):
    """The mean of a prediction's target for a Gaussian, and a given fraction of the variance."""

    def __init__(self, schedule, output, prediction):
        super().__init__()
        self.schedule, self.output, self.prediction = schedule, output, prediction

    def forward(self, x, time, cond):
        step = (time * self.schedule.full_length).round().long()
        abar = self.schedule.alphas_bar[step][..., None]
        residual = (x - abar.sqrt() * MEAN) / (abar * STD**2 + 1 - abar)
        clean, noise = MEAN + abar.sqrt() * STD**2 * residual, (1 - abar).sqrt() * residual
        # A prediction's target is linear in (clean, noise): its mean is that of their means.
        best = self.prediction.target(clean, noise, abar)
        return torch.cat([best, torch.full_like(x, self.output)], dim=-1)


def with_optimal(steps, output=-1.0, prediction=PREDICTIONS[0]):
    head = DiffusionHead(4, 2, width=2, depth=1, steps=steps, prediction=prediction)
    head.network = Optimal(head.schedule, output, prediction)
    return head


def sampled_moments(head):
    """Exact moments of the samples: every step is affine in x and in its noise.

    An affine map is known from its value at 0 and along each noise that enters it.
    """
    inputs = len(head.sampling_schedule)
    basis = torch.zeros(inputs, 1 + inputs, 2)
    basis[torch.arange(inputs), 1 + torch.arange(inputs)] = 1
    out = head.sample_from(torch.zeros(4), basis[0], basis[1:])
    slopes = out[1:] - out[0]
    return out[0], slopes.square().sum(dim=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_optimal_network_gives_the_gaussian(prediction):
    """The full schedule: mean exact, variance but for an error that falls with the steps."""
    errors = []
    for steps in (100, 250, 1000):
        mean, variance = sampled_moments(with_optimal(steps, prediction=prediction))
        # What is left of the start's signal, abar_T = 2e-9, moves the mean by sqrt of it.
        torch.testing.assert_close(mean, MEAN, rtol=0.0, atol=1e-3)
        errors.append(float((variance / STD**2 - 1).abs().max()))
    assert errors[2] < errors[1] < errors[0] < 0.1 and errors[2] < 0.01, errors


def test_moments_by_recursion():
    """The same two moments, from the recursion of mean and variance written out by hand."""
    head = with_optimal(20, output=0.4)
    schedule = head.sampling_schedule
    mean, variance = torch.zeros(2), torch.ones(2)
    for t in reversed(range(20)):
        abar, before = schedule.alphas_bar[t], schedule.alphas_bar_before[t]
        beta = 1 - abar / before
        # E[x | x_t] = MEAN + gain (x_t - sqrt(abar) MEAN)
        gain = abar.sqrt() * STD**2 / (abar * STD**2 + 1 - abar)
        of_clean = beta * before.sqrt() / (1 - abar)
        of_noisy = (1 - before) * (1 - beta).sqrt() / (1 - abar)
        slope = of_clean * gain + of_noisy
        mean = slope * mean + of_clean * (MEAN - gain * abar.sqrt() * MEAN)
        low = beta * (1 - before) / (1 - abar)
        added = torch.exp(0.7 * beta.log() + 0.3 * low.log()) if t > 0 else 0.0
        variance = slope**2 * variance + added
    got_mean, got_variance = sampled_moments(head)
    torch.testing.assert_close(got_mean, mean)
    torch.testing.assert_close(got_variance, variance)


@pytest.mark.parametrize("output, of", [(1.0, "betas"), (-1.0, "posterior_variance")])
def test_learned_variance_has_its_bounds(output, of):
    """At output 1 the reverse step adds beta, at -1 the posterior's variance."""
    head = with_optimal(10, output=output)
    schedule = head.sampling_schedule
    start, noise = torch.zeros(1, 2), torch.zeros(9, 1, 2)
    base = head.sample_from(torch.zeros(4), start, noise)
    # The last noise, of step 1, passes through the mean of step 0 only: E[x | x_0 of the chain].
    noise[-1] = 1.0
    abar = schedule.alphas_bar[0]
    gain = abar.sqrt() * STD**2 / (abar * STD**2 + 1 - abar)
    moved = (head.sample_from(torch.zeros(4), start, noise) - base) / gain
    torch.testing.assert_close(moved[0] ** 2, getattr(schedule, of)[1].expand(2))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_hybrid_loss_is_a_loop(prediction):
    head = small(prediction=prediction)
    cond = torch.randn(3, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 5, 3, 2, generator=seeded(2))
    step = torch.randint(20, (5, 3), generator=seeded(3))
    step[0] = 0
    step[1] = 19
    schedule = head.schedule
    want = torch.zeros(3)
    for d in range(5):
        for b in range(3):
            t = int(step[d, b])
            abar, before, beta = (
                float(v[t])
                for v in (schedule.alphas_bar, schedule.alphas_bar_before, schedule.betas)
            )
            x = math.sqrt(abar) * latents[d, b] + math.sqrt(1 - abar) * noise[d, b]
            out = head.network(x[None], torch.tensor([t / 20]), cond[b])[0].detach()
            for i in range(2):
                o, f = float(out[i]), (float(out[2 + i]) + 1) / 2
                z, xt, eps = float(latents[d, b, i]), float(x[i]), float(noise[d, b, i])
                a, n = math.sqrt(abar), math.sqrt(1 - abar)
                estimate, aim = {
                    NoisePrediction(): ((xt - n * o) / a, eps),
                    VelocityPrediction(): (a * xt - n * o, a * eps - n * z),
                    CleanPrediction(): (o, z),
                }[prediction]
                of_clean = beta * math.sqrt(before) / (1 - abar)
                of_noisy = (1 - before) * math.sqrt(1 - beta) / (1 - abar)
                mean, true_mean = (of_clean * v + of_noisy * xt for v in (estimate, z))
                true_var = float(schedule.posterior_variance[max(t, 1)])
                var = math.exp(f * math.log(beta) + (1 - f) * math.log(true_var))
                if t == 0:
                    bound = 0.5 * math.log(2 * math.pi * var) + (z - mean) ** 2 / (2 * var)
                else:
                    bound = 0.5 * (math.log(var / true_var) - 1)
                    bound += (true_var + (true_mean - mean) ** 2) / (2 * var)
                error = (o - aim) ** 2
                want[b] += (error + bound / math.log(2)) / 2 / 5
    torch.testing.assert_close(head.loss_from(cond, latents, noise, step), want)


def test_bound_trains_the_variance_only():
    """The estimate's gradient is that of the squared error alone."""
    head = small(prediction=NoisePrediction())
    cond = torch.randn(3, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 5, 3, 2, generator=seeded(2))
    step = torch.randint(20, (5, 3), generator=seeded(3))
    outputs = []
    head.network.register_forward_hook(lambda *a: (a[2].retain_grad(), outputs.append(a[2]))[0])
    head.loss_from(cond, latents, noise, step).sum().backward()
    estimate, gradient = outputs[0].detach()[..., :2], outputs[0].grad
    torch.testing.assert_close(gradient[..., :2], 2 * (estimate - noise) / 2 / 5)
    assert (gradient[..., 2:] != 0).all()


def test_sample_draws_what_sample_from_takes():
    head = small()
    cond = torch.randn(3, 4, generator=seeded(1))
    noise = torch.randn(8, 5, 3, 2, generator=seeded(2))
    want = head.sample_from(cond, noise[0], noise[1:])
    generator = seeded(2)
    drawn = torch.stack([torch.randn(5, 3, 2, generator=generator) for _ in range(8)])
    want = head.sample_from(cond, drawn[0], drawn[1:])
    assert torch.equal(head.sample(cond, 5, seeded(2)), want)


@pytest.mark.parametrize("steps, training_steps", [(1, 1), (1, 20), (20, 20)])
def test_extreme_numbers_of_steps(steps, training_steps):
    head = small(steps=steps, training_steps=training_steps)
    assert head.evaluations_per_sample == steps
    samples = head.sample(torch.zeros(3, 4), 2, seeded())
    assert torch.isfinite(samples).all()
    latents, noise = torch.randn(2, 5, 3, 2, generator=seeded(2))
    step = torch.arange(15).view(5, 3) % training_steps
    assert torch.isfinite(head.loss_from(torch.zeros(3, 4), latents, noise, step)).all()


def test_number_of_noises_is_checked():
    with pytest.raises(ValueError, match="one draw for each step but the last, 7; got 8"):
        small().sample_from(torch.zeros(3, 4), torch.zeros(1, 3, 2), torch.zeros(8, 1, 3, 2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"steps": 0}, r"steps must be in \[1, training_steps = 1000\]; got 0"),
        ({"steps": 1001}, r"steps must be in \[1, training_steps = 1000\]; got 1001"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusionHead(4, 2, **arguments)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_prediction_gives_back_the_clean_vector(prediction):
    clean, noise = torch.randn(2, 7, 3, generator=seeded(1))
    signal = torch.rand(7, 1, generator=seeded(2))
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    target = prediction.target(clean, noise, signal)
    torch.testing.assert_close(prediction.clean(target, noisy, signal), clean)


def test_velocity_is_the_derivative_along_the_arc():
    """With a = cos(angle) and b = sin(angle), d x_t / d angle = a noise - b clean."""
    clean, noise = torch.randn(2, 3, generator=seeded(1))
    angle = torch.full((3,), 0.7, requires_grad=True)
    (angle.cos() * clean + angle.sin() * noise).sum().backward()
    target = VelocityPrediction().target(clean, noise, angle.detach().cos() ** 2)
    torch.testing.assert_close(target, angle.grad)


def test_untrained_samples_stay_finite_in_size():
    """Noise prediction of an untrained network does not: the reason for the default."""
    cond = torch.zeros(64, 4)
    spread = {
        prediction: DiffusionHead(4, 2, width=4, depth=1, prediction=prediction)
        .sample(cond, 1, seeded())
        .abs()
        .max()
        for prediction in PREDICTIONS
    }
    assert spread[VelocityPrediction()] < 10 < 1e3 < spread[NoisePrediction()]


def test_sampling_adds_up_in_single_precision_under_autocast():
    """Also if the condition came out of a layer in bfloat16."""
    head = small().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        samples = head.sample(torch.zeros(3, 4, dtype=torch.bfloat16), 2, seeded())
    assert samples.dtype == torch.float32
