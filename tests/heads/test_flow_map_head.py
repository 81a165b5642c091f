"""Flow-map head: both conditions at exact flows, the semigroup, the loss as a loop."""

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

from calmkit.distributions import DiagonalGaussian
from calmkit.heads.flow_map import FlowMapHead
from calmkit.heads.times import LogitNormalTimes, UniformTimes

FLOWS = pytest.mark.parametrize(
    "flow, network, bound",
    [(GAUSSIAN, Known, 1e-20), (MIXTURE, KnownByDifferences, 1e-14)],
    ids=["gaussian", "mixture"],
)


def head_with(network, latent, **settings):
    head = FlowMapHead(4, latent, width=2, **settings)
    head.velocity = network
    return head


@FLOWS
def test_an_exact_flow_has_no_loss(flow, network, bound):
    """Draws whose velocity is the field's leave no error in the flow-matching part either."""
    cond, x = torch.zeros(50, 4), torch.randn(4, 50, flow.size, generator=seeded(1))
    times, ends = random_times(4, 3, 50)
    latents, noise = draws_on_the_field(flow, x, times)

    def loss(shift):
        head = head_with(network(flow.average, shift), flow.size)
        return head.loss_from(cond, latents, noise, times, ends).detach()

    assert loss(0.0).max() < bound
    assert loss(1e-3).min() > 1e-8


@FLOWS
def test_the_jumps_of_an_exact_flow_have_no_loss_at_any_draw(flow, network, bound):
    """No noise is left in them: what is asked of a jump does not depend on the data drawn."""
    cond = torch.zeros(50, 4)
    latents, noise = torch.randn(2, 3, 50, flow.size, generator=seeded(1))
    times, ends = random_times(3, 3, 50)
    head = head_with(network(flow.average), flow.size)
    loss = head.loss_from(cond, latents, noise, times, ends)
    assert loss.max() < bound
    single = head.loss_from(cond, latents, noise, times, ends[:2])  # the last draw is no jump
    assert single.min() > 1e-4


@FLOWS
def test_jumps_compose(flow, network, bound):
    """X(X(x, t, s), s, e) = X(x, t, e): one step and several draw the same sample."""
    noise = torch.randn(200, 2, flow.size, generator=seeded())
    head = head_with(network(flow.average), flow.size)
    one = head.sample_from(torch.zeros(2, 4), noise)
    for steps in (2, 3, 7):
        several = head.with_sampling(steps=steps).sample_from(torch.zeros(2, 4), noise)
        torch.testing.assert_close(several, one)
    assert one.std() > 0.1


def test_one_step_of_an_exact_flow_has_the_targets_law():
    noise = torch.randn(200, 2, 3, generator=seeded())
    cond = torch.zeros(2, 4)
    got = head_with(Known(GAUSSIAN.average), 3).sample_from(cond, noise)
    torch.testing.assert_close(got, GAUSSIAN.mean + GAUSSIAN.std * noise)
    noise = noise[..., :1]
    got = head_with(Known(MIXTURE.average), 1).sample_from(cond, noise)
    below = MIXTURE.probability_below(got, torch.ones(()))
    torch.testing.assert_close(below, normal_distribution(noise))


def test_loss_from_is_a_loop():
    head = filled(FlowMapHead(4, 3, width=6, depth=2))
    cond = torch.randn(2, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 5, 2, 3, generator=seeded(2))
    times, ends = random_times(5, 3, 2)
    want = torch.zeros(2)
    for d in range(5):
        for b in range(2):
            t, z, x0 = times[d, b], latents[d, b], noise[d, b]
            x = (1 - t) * x0 + t * z

            def u(x, t, e, b=b):
                return head.velocity(x[None], t[None], e[None], cond[b])[0]

            def jump(e, x=x, t=t, u=u):
                return x + (e - t) * u(x, t, e)

            if d < 3:
                e = ends[d, b]
                slope = (jump(e + 1e-5) - jump(e - 1e-5)) / 2e-5
                error = slope - u(jump(e), e, e)
            else:
                error = u(x, t, t) - (z - x0)
            want[b] += (error**2).sum() / 3 / 5
    got = head.loss_from(cond, latents, noise, times, ends)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_the_teacher_is_held_fixed_and_the_derivative_is_not():
    """The gradient, by differences in one parameter of the taught side alone."""
    head = filled(FlowMapHead(4, 3, width=6, depth=2, draws=3, jumps=2))
    cond = torch.randn(2, 4, generator=seeded(1))
    latents, noise = torch.randn(2, 3, 2, 3, generator=seeded(2))
    times, ends = random_times(3, 2, 2)
    x = torch.lerp(noise, latents, times[..., None])[:2]
    span = (ends - times[:2])[..., None]
    with torch.no_grad():
        here = head.velocity(x, times[:2], ends, cond)
        teacher = head.velocity(x + span * here, ends, ends, cond)

    @torch.no_grad()
    def taught():
        def jump(e):
            return x + (e - times[:2])[..., None] * head.velocity(x, times[:2], e, cond)

        slope = (jump(ends + 1e-4) - jump(ends - 1e-4)) / 2e-4
        still = times[2:]
        path = torch.lerp(noise, latents, times[..., None])[2:]
        flow = head.velocity(path, still, still, cond) - (latents - noise)[2:]
        return torch.cat([slope - teacher, flow]).square().mean(-1).mean(0).sum()

    loss = head.loss_from(cond, latents, noise, times, ends).sum()
    gradients = torch.autograd.grad(loss, list(head.parameters()))
    for (name, parameter), got in zip(head.named_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=seeded(5))
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(taught())
                parameter.sub_(step * direction)
        want = (values[0] - values[1]) / 2e-4
        # Differences of differences: no more digits than these.
        torch.testing.assert_close((got * direction).sum(), want, rtol=1e-4, atol=1e-5, msg=name)


def test_samples_take_equal_steps():
    head = filled(FlowMapHead(4, 3, width=5, depth=1, steps=3))
    cond = torch.randn(2, 4, generator=seeded(1))
    noise = torch.randn(5, 2, 3, generator=seeded(2))
    assert head.evaluations_per_sample == 3
    assert torch.equal(head.sample(cond, 5, seeded(2)), head.sample_from(cond, noise))
    x = noise
    for t, e in ((0.0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.0)):
        x = x + head.velocity(x, torch.full((1, 1), t), torch.full((1, 1), e), cond) / 3
    torch.testing.assert_close(head.sample(cond, 5, seeded(2)), x)


def test_guidance_extrapolates_the_average_velocity():
    head = filled(FlowMapHead(4, 3, width=5, depth=1, steps=2))
    cond, null = torch.randn(2, 4, generator=seeded(1)), torch.randn(4, generator=seeded(3))
    x = torch.randn(5, 2, 3, generator=seeded(2))
    got = head.sample_guided(cond, null, 1.5, 5, seeded(2))
    for t in (0.0, 0.5):
        times = torch.full((1, 1), t), torch.full((1, 1), t + 0.5)
        without, given = (head.velocity(x, *times, c) for c in (null.expand(2, 4), cond))
        x = x + 0.5 * (1.5 * given - 0.5 * without)
    torch.testing.assert_close(got, x)


@pytest.mark.parametrize("law", [UniformTimes(), LogitNormalTimes(0.4, 0.5)], ids=str)
def test_times_of_a_jump_are_a_sorted_pair(law):
    """And those of the other draws are single. All, brought back to uniform numbers, have the
    moments of the smaller and the larger of two, and of one."""
    head = FlowMapHead(1, 1, width=2, draws=3, jumps=2, times=law)
    seen = []
    head.loss_from = lambda *arguments: seen.append(arguments[3:]) or torch.zeros(20_000)
    target = DiagonalGaussian(torch.zeros(20_000, 1), torch.ones(20_000, 1))
    head.loss(torch.zeros(20_000, 1), target, seeded())
    ((times, ends),) = seen
    assert times.shape == (3, 20_000) and ends.shape == (2, 20_000)
    assert (times[:2] <= ends).all()
    if isinstance(law, LogitNormalTimes):
        times, ends = (
            torch.special.ndtr((values.logit() - law.mean) / law.std) for values in (times, ends)
        )
    for values, mean, variance in [
        (times[:2], 1 / 3, 1 / 18),
        (ends, 2 / 3, 1 / 18),
        (ends - times[:2], 1 / 3, 1 / 18),
        (times[2:], 1 / 2, 1 / 12),
    ]:
        assert abs(values.mean() - mean) < 4.9 * (variance / values.numel()) ** 0.5
