"""Diffusion head: its loss as a loop, exact moments with the optimal network, parts that fit."""

import math

import pytest
import torch
from seeding import seeded
from torch import nn

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.diffusion import DiffusionHead
from calmkit.heads.prediction import CleanPrediction, NoisePrediction, VelocityPrediction
from calmkit.heads.reverse import DDIMSampler, DDPMSampler, DPMSolverSampler
from calmkit.heads.schedule import CosineSchedule, ZeroTerminalSNR
from calmkit.heads.variance import FixedVariance, LearnedVariance
from calmkit.heads.weighting import MinSNRWeighting, UniformWeighting

MEAN = torch.tensor([1.0, -2.0])
STD = torch.tensor([0.5, 1.5])


def small(steps=8, training_steps=20, **changes):
    """A head with random weights."""
    parts = {"schedule": CosineSchedule(training_steps), "sampler": DDPMSampler(steps)}
    head = DiffusionHead(4, 2, **{"width": 5, "depth": 1, **parts, **changes})
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
        best = self.prediction.target(clean, noise, abar.sqrt(), (1 - abar).sqrt())
        return torch.cat([best, torch.full_like(x, self.output)], dim=-1)


def with_optimal(steps, output=-1.0, prediction=PREDICTIONS[0]):
    head = DiffusionHead(4, 2, width=2, depth=1, sampler=DDPMSampler(steps), prediction=prediction)
    head.network = Optimal(head.schedule, output, prediction)
    return head


def sampled_moments(head):
    """Exact moments of the samples: every step is affine in x and in its noise.

    An affine map is known from its value at 0 and along each noise that enters it.
    """
    inputs = head.evaluations_per_sample
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
    schedule = head.schedule.visiting(head.sampler.visited(head.schedule))
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
    schedule = head.schedule.visiting(head.sampler.visited(head.schedule))
    start, noise = torch.zeros(1, 2), torch.zeros(9, 1, 2)
    base = head.sample_from(torch.zeros(4), start, noise)
    # The last noise, of step 1, passes through the mean of step 0 only: E[x | x_0 of the chain].
    noise[-1] = 1.0
    abar = schedule.alphas_bar[0]
    gain = abar.sqrt() * STD**2 / (abar * STD**2 + 1 - abar)
    moved = (head.sample_from(torch.zeros(4), start, noise) - base) / gain
    torch.testing.assert_close(moved[0] ** 2, getattr(schedule, of)[1].expand(2))


VARIANCES = (LearnedVariance(), FixedVariance(), FixedVariance(large=True))


@pytest.mark.parametrize("weighting", [UniformWeighting(), MinSNRWeighting(2.0)])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_is_a_loop(prediction, variance, weighting):
    head = small(prediction=prediction, variance=variance, weighting=weighting)
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
            snr = abar / (1 - abar)
            weight = 1.0
            if weighting == MinSNRWeighting(2.0):
                weight = min(snr, 2) / {0: snr + 1, 1: snr, 2: 1}[PREDICTIONS.index(prediction)]
            for i in range(2):
                o, z, xt, eps = (float(v[i]) for v in (out, latents[d, b], x, noise[d, b]))
                a, n = math.sqrt(abar), math.sqrt(1 - abar)
                estimate, aim = {
                    NoisePrediction(): ((xt - n * o) / a, eps),
                    VelocityPrediction(): (a * xt - n * o, a * eps - n * z),
                    CleanPrediction(): (o, z),
                }[prediction]
                want[b] += weight * (o - aim) ** 2 / 2 / 5
                if variance != LearnedVariance():
                    continue
                f = (float(out[2 + i]) + 1) / 2
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
                want[b] += bound / math.log(2) / 2 / 5
    torch.testing.assert_close(head.loss_from(cond, latents, noise, step), want)


@pytest.mark.parametrize("variance", VARIANCES)
def test_variance_sets_the_number_of_outputs(variance):
    head = small(variance=variance)
    assert head.network.output.out_features == 2 * variance.outputs


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_strata_hold_each_step_alike(draws, monkeypatch):
    """By enumeration of what the generator may give: each step `draws` times of `draws` x 9."""
    head = small(training_steps=9, draws=draws)
    seen, given = [], []

    def record(cond, latents, noise, step):
        given.append(step)
        return torch.zeros(3)

    monkeypatch.setattr(head, "loss_from", record)
    target = DiagonalGaussian.point_mass(torch.zeros(3, 2))
    for r in range(9):
        monkeypatch.setattr(
            torch, "randint", lambda high, shape, r=r, **_: torch.full(shape, r % high)
        )
        head.loss(torch.zeros(3, 4), target, seeded())
        seen.append(given.pop())
    steps = torch.stack(seen, dim=1)  # draws, r, positions
    for position in range(3):
        counts = torch.bincount(steps[..., position].flatten(), minlength=9)
        assert counts.tolist() == [draws] * 9
    for k in range(draws):  # and the k-th draw stays in its part
        assert k * 9 // draws <= steps[k].min() and steps[k].max() <= ((k + 1) * 9 - 1) // draws


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


@pytest.mark.parametrize(
    "sampler", [DDPMSampler(8), DDIMSampler(5), DDIMSampler(5, eta=0.5), DPMSolverSampler(6)]
)
def test_sample_draws_what_sample_from_takes(sampler):
    """And `with_sampling` does what the constructor would."""
    other, own = small().with_sampling(sampler=sampler), small(sampler=sampler)
    cond = torch.randn(3, 4, generator=seeded(1))
    generator = seeded(2)
    drawn = [torch.randn(5, 3, 2, generator=generator) for _ in range(1 + sampler.noises)]
    noise = torch.stack(drawn[1:]) if sampler.noises else None
    want = own.sample_from(cond, drawn[0], noise)
    assert torch.equal(own.sample(cond, 5, seeded(2)), want)
    assert torch.equal(other.sample(cond, 5, seeded(2)), want)
    assert torch.equal(other.sample_from(cond, drawn[0], noise), want)
    assert own.evaluations_per_sample == sampler.evaluations


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", [CosineSchedule(20), CosineSchedule(40)])
def test_denoiser_is_the_network(prediction, schedule):
    """The clean x of its output at the step's time; also on a part of a longer schedule."""
    schedule = schedule.visiting(schedule.even_steps(20))
    head = small(prediction=prediction, schedule=schedule)
    cond = torch.randn(3, 4, generator=seeded(1))
    noisy = torch.randn(5, 3, 2, generator=seeded(2))
    t = 7
    said = head.denoiser(cond)(noisy, torch.tensor(t))
    time = torch.tensor(int(schedule.steps[t]) / schedule.full_length)
    output = head.network(noisy, time.expand(5, 3), cond)
    a, b = schedule.signal_scale[t], schedule.noise_scale[t]
    torch.testing.assert_close(said.clean, prediction.clean(output[..., :2], noisy, a, b))
    torch.testing.assert_close(said.variance_fraction, (output[..., 2:] + 1) / 2)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 2.5])
def test_guidance_combines_what_the_network_predicts(prediction, scale):
    """Outputs combined by hand; the variance's only between the two, not beyond."""
    head = small(prediction=prediction)
    cond, null = torch.randn(3, 4, generator=seeded(1)), torch.randn(4, generator=seeded(2))
    network = head.network

    class Combined(nn.Module):
        def forward(self, x, time, cond):
            with_cond, without = network(x, time, cond), network(x, time, null.expand_as(cond))
            weight = torch.tensor([scale, scale, min(scale, 1), min(scale, 1)])
            return (1 - weight) * without + weight * with_cond

    for sampler in (DDPMSampler(8), DPMSolverSampler(5)):
        head = head.with_sampling(sampler=sampler)
        head.network = network
        got = head.sample_guided(cond, null, scale, 5, seeded(3))
        head.network = Combined()
        torch.testing.assert_close(got, head.sample(cond, 5, seeded(3)))


@pytest.mark.parametrize("sampler", [DDPMSampler(3), DDIMSampler(3, 0.5), DPMSolverSampler(3)])
def test_sampling_compiles_in_one_graph(sampler):
    head = small(training_steps=9).with_sampling(sampler=sampler)
    cond = torch.randn(3, 4, generator=seeded(1))
    start = torch.randn(5, 3, 2, generator=seeded(2))
    noise = torch.randn(sampler.noises, 5, 3, 2, generator=seeded(3))

    def both(cond, start, noise):
        return head.sample_from(cond, start, noise), head.sample(cond, 5)

    torch._dynamo.reset()
    got, drawn = torch.compile(both, fullgraph=True, backend="eager")(cond, start, noise)
    torch.testing.assert_close(got, head.sample_from(cond, start, noise))
    assert drawn.shape == (5, 3, 2) and torch.isfinite(drawn).all()


@pytest.mark.parametrize("prediction", [VelocityPrediction(), CleanPrediction()])
def test_zero_terminal_snr(prediction):
    """Training and sampling pass through the step without signal."""
    head = small(prediction=prediction, schedule=ZeroTerminalSNR(CosineSchedule(20)))
    cond = torch.randn(3, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 5, 3, 2, generator=seeded(2))
    loss = head.loss_from(cond, latents, noise, torch.full((5, 3), 19))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())
    for sampler in (DDPMSampler(5), DDIMSampler(5), DPMSolverSampler(5)):
        assert torch.isfinite(head.with_sampling(sampler=sampler).sample(cond, 2, seeded())).all()


def test_parts_that_do_not_fit_are_named():
    silent = ZeroTerminalSNR(CosineSchedule(20))
    with pytest.raises(
        ValueError, match=r"NoisePrediction does not.*Use VelocityPrediction or Cl"
    ):
        small(schedule=silent, prediction=NoisePrediction())
    with pytest.raises(
        ValueError, match=r"MinSNRWeighting gives 0 to step 19\. Use UniformWeight"
    ):
        small(schedule=silent, weighting=MinSNRWeighting())


def test_default_parts_are_the_published_ones_but_for_the_prediction():
    head = DiffusionHead(4, 2, width=5)
    assert torch.equal(head.schedule.betas, CosineSchedule(1000).betas)
    assert head.sampler == DDPMSampler(100) and head.evaluations_per_sample == 100
    assert head.variance == LearnedVariance() and head.weighting == UniformWeighting()
    assert head.prediction == VelocityPrediction()
    assert {name.split(".")[0] for name in head.state_dict()} == {"network"}


def test_parts_come_from_a_config():
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--head", type=DiffusionHead)

    def part(module, name, **arguments):
        return {"class_path": f"calmkit.heads.{module}.{name}", "init_args": arguments}

    linear = part("schedule", "LinearSchedule", length=50)
    arguments = {
        "cond_size": 4,
        "latent_size": 2,
        "width": 5,
        "schedule": part("schedule", "ZeroTerminalSNR", schedule=linear),
        "prediction": part("prediction", "CleanPrediction"),
        "variance": part("variance", "FixedVariance", large=True),
        "weighting": part("weighting", "UniformWeighting"),
        "sampler": part("reverse", "DDIMSampler", steps=5, eta=0.5),
    }
    config = {"head": {"class_path": "calmkit.heads.DiffusionHead", "init_args": arguments}}
    head = parser.instantiate(parser.parse_object(config)).head
    assert len(head.schedule) == 50 and head.schedule.snr[-1] == 0
    assert head.prediction == CleanPrediction() and head.variance == FixedVariance(large=True)
    assert head.sampler == DDIMSampler(5, eta=0.5) and head.weighting == UniformWeighting()


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
    with pytest.raises(ValueError, match="noise must hold 7 draws; got 8"):
        small().sample_from(torch.zeros(3, 4), torch.zeros(1, 3, 2), torch.zeros(8, 1, 3, 2))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"sampler": DDPMSampler(1001)}, r"length must be in \[1, 1000\].*; got 1001"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiffusionHead(4, 2, **arguments)


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
        cond = torch.zeros(3, 4, dtype=torch.bfloat16)
        samples = head.sample(cond, 2, seeded())
        said = head.denoiser(cond)(samples, torch.tensor(3))
    assert samples.dtype == said.clean.dtype == said.variance_fraction.dtype == torch.float32
