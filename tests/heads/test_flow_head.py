"""Flow head: the loss as a loop, the optimal field of a Gaussian, the solver's order."""

import itertools
import math

import pytest
import torch
from torch import nn

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import FlowHead, integrate_midpoint

MEAN = torch.tensor([1.0, -2.0, 0.3])
STD = torch.tensor([0.5, 2.0, 0.05])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def optimal_velocity(x, t, mean=MEAN, std=STD):
    """E[z - x0 | x_t = x] for z ~ N(mean, std^2), by conditioning of jointly Gaussians."""
    variance = (1 - t) ** 2 + t**2 * std**2
    covariance = t * std**2 - (1 - t)
    return mean + covariance / variance * (x - t * mean)


class Optimal(nn.Module):
    """Stands where the head's network stands."""

    def forward(self, x, time, cond):
        return optimal_velocity(x, time[..., None])


def exact_end(x):
    """The field's flow keeps quantiles: x0 arrives at mean + std * x0."""
    return MEAN + STD * x


def orders(field, end):
    """log2 of how much the error falls when the steps are halved."""
    x = torch.randn(100, 3, generator=seeded())
    errors = [(integrate_midpoint(field, x, n) - end(x)).abs().max() for n in (50, 100, 200, 400)]
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def test_midpoint_has_order_two():
    measured = orders(lambda x, t: x * t.cos(), lambda x: x * math.exp(math.sin(1)))
    assert all(abs(order - 2) < 0.05 for order in measured), measured


def test_midpoint_has_at_least_order_two_on_the_optimal_field():
    """Order 3, in fact: the leading error cancels over [0, 1] where the target is Gaussian."""
    measured = orders(optimal_velocity, exact_end)
    assert all(abs(order - 3) < 0.05 for order in measured), measured


def test_midpoint_of_a_polynomial_by_hand():
    """x' = t has x(1) = x + 1/2 exactly; x' = x grows by 1 + h + h^2 / 2 a step."""
    x = torch.tensor([[2.0]])
    torch.testing.assert_close(integrate_midpoint(lambda x, t: 0 * x + t, x, 3), x + 0.5)
    grown = integrate_midpoint(lambda x, t: x, x, 4)
    torch.testing.assert_close(grown, x * (1 + 1 / 4 + 1 / 32) ** 4)


def test_midpoint_refuses_no_step():
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        integrate_midpoint(lambda x, t: x, torch.zeros(1, 1), 0)


def test_optimal_field_reproduces_the_gaussian():
    head = FlowHead(4, 3, width=2, steps=2000)
    head.velocity = Optimal()
    noise = torch.randn(5, 2, 3, generator=seeded())
    got = head.sample_from(torch.zeros(2, 4), noise)
    torch.testing.assert_close(got, exact_end(noise), rtol=0.0, atol=1e-4)


def test_sampling_starts_from_standard_normal_noise():
    head = FlowHead(4, 3, width=2, steps=3)
    cond = torch.randn(2, 4, generator=seeded(1))
    noise = torch.randn(5, 2, 3, generator=seeded(2))
    assert torch.equal(head.sample(cond, 5, seeded(2)), head.sample_from(cond, noise))


def test_loss_from_is_a_loop():
    head = FlowHead(4, 3, width=5, depth=1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=seeded()))
    cond = torch.randn(2, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 6, 2, 3, generator=seeded(2))
    times = torch.rand(6, 2, generator=seeded(3))
    want = torch.zeros(2)
    for d in range(6):
        for b in range(2):
            t, z, x0 = times[d, b], latents[d, b], noise[d, b]
            x = (1 - t) * x0 + t * z
            v = head.velocity(x[None], t[None], cond[b])[0]
            want[b] += ((v - (z - x0)) ** 2).sum() / 3 / 6
    torch.testing.assert_close(head.loss_from(cond, latents, noise, times), want)


def test_optimal_field_has_the_least_loss():
    """And its value is the conditional variance of z - x0, averaged over times."""
    head = FlowHead(1, 3, width=2, draws=200_000)
    target = DiagonalGaussian(MEAN, STD)
    losses = {}
    for name, shift in {"optimal": 0.0, "wrong": 0.1}.items():
        head.velocity = Optimal()
        head.velocity.register_forward_hook(lambda *a, shift=shift: a[2] + shift)
        losses[name] = head.loss(torch.zeros(1), target, seeded(7))
    t = ((torch.arange(10_000) + 0.5) / 10_000)[:, None]
    spread = (1 - t) ** 2 + t**2 * STD**2
    residual = (1 + STD**2) - (t * STD**2 - (1 - t)) ** 2 / spread
    # 200 000 draws of a quantity with mean and standard deviation about 2.
    torch.testing.assert_close(losses["optimal"], residual.mean(), rtol=0.02, atol=0.0)
    assert losses["wrong"] - losses["optimal"] > 0.005  # the shift adds 0.01


def test_evaluations_are_two_a_step():
    assert FlowHead(4, 3, width=2, steps=7).evaluations_per_sample == 14


@pytest.mark.parametrize("arguments", [{"draws": 0}, {"steps": 0}])
def test_bad_settings_are_named(arguments):
    with pytest.raises(ValueError, match="draws and steps must be at least 1; got"):
        FlowHead(4, 3, **arguments)


def test_sampling_adds_up_in_single_precision_under_autocast():
    """Also if the condition came out of a layer in bfloat16."""
    head = FlowHead(4, 3, width=2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        samples = head.sample(torch.zeros(3, 4, dtype=torch.bfloat16), 2, seeded())
    assert samples.dtype == torch.float32
