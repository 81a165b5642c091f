"""MeanFlow head: the identity at exact flows, its gradient, its sampler, the loss as a loop."""

import pytest
import torch
from exact_flows import (
    GAUSSIAN,
    MIXTURE,
    Known,
    KnownByDifferences,
    draws_on_the_field,
    filled,
    normal_distribution,
    random_times,
)
from seeding import seeded

from calmkit.heads.mean_flow import MeanFlowHead
from calmkit.nn.dual import Dual


def head_with(network, latent, **settings):
    head = MeanFlowHead(4, latent, width=2, **settings)
    head.velocity = network
    return head


@pytest.mark.parametrize(
    "flow, network, bound",
    [(GAUSSIAN, Known, 1e-20), (MIXTURE, KnownByDifferences, 1e-14)],
    ids=["gaussian", "mixture"],
)
@pytest.mark.parametrize("own", [True, False])
def test_an_exact_flow_satisfies_the_identity(flow, network, bound, own):
    """With the field's own velocity, the target is the average velocity, wherever it is asked."""
    size = flow.size
    cond, x = torch.zeros(50, 4), torch.randn(4, 50, size, generator=seeded(1))
    times, ends = random_times(4, 3, 50)
    latents, noise = draws_on_the_field(flow, x, times)

    def loss(shift):
        head = head_with(network(flow.average, shift), size, own_velocity=own)
        return head.loss_from(cond, latents, noise, times, ends).detach()

    assert loss(0.0).max() < bound
    assert loss(1e-3).min() > 1e-7


@pytest.mark.parametrize("own", [True, False])
def test_gradient_vanishes_in_the_mean_at_the_exact_flow(own):
    """Given x_t, velocities vary about the field's. Three draws whose deviations add up to zero
    are enough, as the target is linear in them; with a weight that depends on them it is not."""
    cond, x = torch.zeros(20, 4), torch.randn(20, 3, generator=seeded(1))
    times, ends = random_times(2, 1, 20)
    t = times[:1]
    latents, noise = draws_on_the_field(GAUSSIAN, x[None], t)
    # Along a path through x, the noise moves by -t and the latent by 1 - t.
    offset = torch.randn(20, 3, generator=seeded(2))
    sides = torch.tensor([1.0, 1.0, -2.0])[:, None, None]
    latents = latents + (1 - t[..., None]) * sides * offset
    noise = noise - t[..., None] * sides * offset

    def gradients(shift, **settings):
        network = Known(GAUSSIAN.average, shift)
        head = head_with(network, 3, own_velocity=own, **settings)
        jumps = head.loss_from(cond, latents, noise, t.expand(3, -1), ends.expand(3, -1))
        parameters = [network.shift, network.slope]
        return torch.stack(torch.autograd.grad(jumps.mean(), parameters))

    assert gradients(0.0).abs().max() < 1e-12
    assert gradients(0.0, power=1.0).abs().max() > 1e-3
    assert gradients(0.1).abs().max() > 1e-2


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_samples_of_an_exact_flow_have_the_targets_law(steps):
    noise = torch.randn(200, 2, 3, generator=seeded())
    head = head_with(Known(GAUSSIAN.average), 3)
    got = head.with_sampling(steps=steps).sample_from(torch.zeros(2, 4), noise)
    torch.testing.assert_close(got, GAUSSIAN.mean + GAUSSIAN.std * noise)

    head = head_with(Known(MIXTURE.average), 1)
    got = head.with_sampling(steps=steps).sample_from(torch.zeros(2, 4), noise[..., :1])
    one = torch.ones(())
    torch.testing.assert_close(
        MIXTURE.probability_below(got, one), normal_distribution(noise[..., :1])
    )


def test_derivatives_are_limits_of_differences():
    """Of the network, along the path with the end kept, and in the end with the rest kept."""
    net = filled(MeanFlowHead(4, 3, width=6, depth=2)).velocity
    cond = torch.randn(5, 4, generator=seeded(1))
    x, v = torch.randn(2, 2, 5, 3, generator=seeded(2))
    times, ends = random_times(2, 2, 5)
    h = 1e-5
    for moved, end_moved in ((1.0, 0.0), (0.0, 1.0)):
        speed = torch.full_like(times, moved)
        got = net.dual(
            Dual(x, moved * v),
            Dual(times, speed),
            Dual(ends, torch.full_like(ends, end_moved)),
            cond,
        )
        torch.testing.assert_close(got.value, net(x, times, ends, cond))
        ahead, behind = (
            net(x + s * moved * v, times + s * moved, ends + s * end_moved, cond) for s in (h, -h)
        )
        torch.testing.assert_close(got.tangent, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("own", [True, False])
def test_loss_from_is_a_loop(power, own):
    head = filled(MeanFlowHead(4, 3, width=6, depth=2, power=power, own_velocity=own))
    cond = torch.randn(2, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 5, 2, 3, generator=seeded(2))
    times, ends = random_times(5, 3, 2)
    want = torch.zeros(2)
    for d in range(5):
        for b in range(2):
            t, z, x0 = times[d, b], latents[d, b], noise[d, b]
            e = ends[d, b] if d < 3 else t

            x, v = (1 - t) * x0 + t * z, z - x0

            def u(x, t, e, b=b):
                return head.velocity(x[None], t[None], e[None], cond[b])[0]

            along = u(x, t, t) if own else v
            h = 1e-5  # x moves with the velocity, e stays
            slope = (u(x + h * along, t + h, e) - u(x - h * along, t - h, e)) / (2 * h)
            error = ((u(x, t, e) - v - (e - t) * slope) ** 2).sum() / 3
            want[b] += error / (error + 1e-3) ** power / 5
    got = head.loss_from(cond, latents, noise, times, ends)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_target_is_held_fixed():
    """The gradient is that of the error with the target as a number."""
    network = Known(GAUSSIAN.average, 0.3)
    head = head_with(network, 3, draws=2, jumps=1)
    cond = torch.zeros(4)
    latents, noise = torch.randn(2, 2, 3, generator=seeded())
    times, ends = random_times(2, 1)
    loss = head.loss_from(cond, latents, noise, times, ends)
    (got,) = torch.autograd.grad(loss, network.shift)
    with torch.no_grad():
        x = torch.lerp(noise, latents, times[:, None])
        u = network(x, times, torch.cat([ends, times[1:]]), cond)
        v = latents - noise
    one, zero = torch.ones(1), torch.zeros(1)
    slope = network.dual(
        Dual(x[:1], v[:1]), Dual(times[:1], one), Dual(ends, zero), cond
    ).tangent.detach()
    target = v + torch.cat([(ends - times[:1])[:, None] * slope, torch.zeros(1, 3)])
    torch.testing.assert_close(got, (2 * (u - target)).mean(-1).mean(0).sum())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"draws": 3, "jumps": 3}, r"jumps must be in \[1, draws - 1\] = \[1, 2\]; got 3"),
        ({"jumps": 0}, r"jumps must be in \[1, draws - 1\] = \[1, 3\]; got 0"),
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"power": 1.5}, r"power must be in \[0, 1\]; got 1.5"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MeanFlowHead(4, 3, **arguments)
