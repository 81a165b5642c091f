"""Flow head: the loss as a loop, optimal velocities, log-density, derivative in time."""

import math

import pytest
import torch
from gaussian_flows import GAUSSIAN, MIXTURE
from seeding import seeded
from torch import nn

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import FlowHead
from calmkit.heads.ode import (
    AdaptiveSolver,
    EulerSolver,
    HeunSolver,
    MidpointSolver,
    RungeKutta4Solver,
)
from calmkit.heads.times import LogitNormalTimes, UniformTimes, stratified


def small(latent=3, **settings):
    """Random weights: those that start at zero would hide what they multiply."""
    head = FlowHead(4, latent, width=5, depth=1, **settings)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(
                0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
            )
    return head


def smooth(latent):
    """The same, but slow in time: its log-density is then found by few steps."""
    head = small(latent)
    head.velocity.time_embedding.resolution = 3.0
    return head


def optimal(target, latent, **settings):
    head = FlowHead(4, latent, width=2, depth=1, **settings)
    head.velocity = target
    return head


def conditions(*batch):
    return torch.randn(*batch, 4, generator=seeded(1))


# ---- the target is reproduced ----


def test_optimal_velocity_of_a_gaussian():
    head = optimal(GAUSSIAN, 3, solver=RungeKutta4Solver(200))
    noise = torch.randn(5, 2, 3, generator=seeded())
    got = head.sample_from(conditions(2), noise)
    torch.testing.assert_close(got, GAUSSIAN.end(noise), rtol=0.0, atol=1e-6)
    # The map is affine: its moments are exact from its values at 0 and at the unit vectors.
    basis = torch.cat([torch.zeros(1, 3), torch.eye(3)])[:, None]
    mean, *columns = head.sample_from(conditions(1), basis)[:, 0]
    slope = torch.stack(columns, dim=1) - mean[:, None]
    torch.testing.assert_close(mean, GAUSSIAN.mean, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(slope @ slope.T, GAUSSIAN.covariance, rtol=0.0, atol=1e-6)


def test_optimal_velocity_of_a_mixture():
    """Moments of the samples by quadrature over the noise."""
    head = optimal(MIXTURE, 2, solver=RungeKutta4Solver(25))
    side = torch.linspace(-7, 7, 101)
    noise = torch.cartesian_prod(side, side)
    weight = (-0.5 * noise.square().sum(1)).exp()
    weight = weight / weight.sum()
    samples = head.sample_from(conditions(1), noise[:, None])[:, 0]
    mean = weight @ samples
    covariance = (weight[:, None] * (samples - mean)).T @ (samples - mean)
    want_mean, want_covariance = MIXTURE.moments()
    torch.testing.assert_close(mean, want_mean, rtol=0.0, atol=1e-3)
    torch.testing.assert_close(covariance, want_covariance, rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("target, latent", [(GAUSSIAN, 3), (MIXTURE, 2)])
def test_log_prob_of_an_optimal_velocity(target, latent):
    head, cond = optimal(target, latent), conditions(7)
    latents = torch.randn(7, latent, generator=seeded())
    want = target.log_prob(latents)
    got = head.log_prob(cond, latents, solver=RungeKutta4Solver(200))
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-5)
    assert torch.equal(
        head.log_prob(cond, latents), head.log_prob(cond, latents, solver=RungeKutta4Solver(25))
    )


def test_optimal_velocity_has_the_least_loss():
    """And its value is the conditional variance of z - x0, averaged over times."""
    mean, std = torch.tensor([1.0, -2.0, 0.3]), torch.tensor([0.5, 2.0, 0.05])

    class Optimal(nn.Module):
        def __init__(self, shift):
            super().__init__()
            self.shift = shift

        def forward(self, x, time, cond):
            t = time[..., None]
            gain = (t * std**2 - (1 - t)) / ((1 - t) ** 2 + t**2 * std**2)
            return mean + gain * (x - t * mean) + self.shift

    losses = {}
    for shift in (0.0, 0.1):
        head = optimal(Optimal(shift), 3, draws=200_000)
        losses[shift] = head.loss(torch.zeros(4), DiagonalGaussian(mean, std), seeded(7))
    t = ((torch.arange(10_000) + 0.5) / 10_000)[:, None]
    spread = (1 - t) ** 2 + t**2 * std**2
    residual = (1 + std**2) - (t * std**2 - (1 - t)) ** 2 / spread
    # 200 000 draws of a quantity with mean and standard deviation about 2.
    torch.testing.assert_close(losses[0.0], residual.mean(), rtol=0.02, atol=0.0)
    assert losses[0.1] - losses[0.0] > 0.005  # the shift adds 0.01


# ---- the loss ----


def test_loss_from_is_a_loop():
    head = small()
    cond = conditions(2)
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


@pytest.mark.parametrize("law", [UniformTimes(), LogitNormalTimes(0.5, 1.2)])
def test_loss_draws_latents_noise_and_stratified_times(law):
    head = small(draws=3, times=law)
    target = DiagonalGaussian(torch.randn(2, 3, generator=seeded(1)), torch.full((2, 3), 0.3))
    generator = seeded(5)
    latents = target.sample(3, generator)
    noise = torch.randn(3, 2, 3, generator=generator)
    times = law.from_uniform(stratified(torch.rand(3, 2, generator=generator)))
    want = head.loss_from(conditions(2), latents, noise, times)
    assert torch.equal(head.loss(conditions(2), target, seeded(5)), want)


@pytest.mark.parametrize("law", [UniformTimes(), LogitNormalTimes(0.5, 1.2)])
def test_stratified_times_leave_the_expected_loss_and_gradient_alone(law):
    """Exactly: over a grid of uniform numbers, all strata together are all times alike."""
    head = small()
    cond, draws, size = conditions(), 4, 5
    latent, noise = torch.randn(2, 3, generator=seeded(2))

    def loss_and_gradients(uniform):
        losses = [
            head.loss_from(
                cond, latent.expand(len(u), 3), noise.expand(len(u), 3), law.from_uniform(u)
            )
            for u in uniform
        ]
        loss = torch.stack(losses).mean()
        return loss, *torch.autograd.grad(loss, list(head.parameters()))

    grid = (torch.arange(size) + 0.5) / size
    strata = stratified(grid.expand(draws, size)).T  # each of `size` losses has `draws` draws
    fine = ((torch.arange(draws * size) + 0.5) / (draws * size))[:, None]  # one draw each
    for got, want in zip(loss_and_gradients(strata), loss_and_gradients(fine), strict=True):
        torch.testing.assert_close(got, want)


# ---- sampling ----


def test_sampling_starts_from_standard_normal_noise():
    head = small()
    noise = torch.randn(5, 2, 3, generator=seeded(2))
    want = head.sample_from(conditions(2), noise)
    assert torch.equal(head.sample(conditions(2), 5, seeded(2)), want)


def test_default_is_ten_midpoint_steps_by_hand():
    head = small()
    x = noise = torch.randn(2, 3, 3, generator=seeded(2))
    cond = conditions(3)
    for k in range(10):

        def velocity(x, t):
            return head.velocity(x, torch.full((2, 3), t), cond)

        x = x + velocity(x + velocity(x, k / 10) / 20, k / 10 + 1 / 20) / 10
    torch.testing.assert_close(head.sample_from(cond, noise), x)


SOLVERS = [
    (EulerSolver(7), 7),
    (MidpointSolver(7), 14),
    (HeunSolver(7), 14),
    (RungeKutta4Solver(7), 28),
]


@pytest.mark.parametrize("solver, evaluations", SOLVERS, ids=lambda value: str(value))
def test_samples_take_as_many_evaluations_as_the_solver(solver, evaluations):
    own, calls = small(solver=solver), []
    assert own.evaluations_per_sample == evaluations
    assert small().evaluations_per_sample == 20
    own.velocity.register_forward_hook(lambda *_: calls.append(1))
    samples = own.sample(conditions(2), 3, seeded())
    assert len(calls) == evaluations
    assert not torch.isclose(samples, small().sample(conditions(2), 3, seeded())).all()


def test_adaptive_solver():
    pytest.importorskip("torchdiffeq")
    head = smooth(3).with_sampling(solver=AdaptiveSolver(1e-9, 1e-9))
    assert head.evaluations_per_sample is None
    cond, generator = conditions(2), seeded
    want = head.with_sampling(solver=RungeKutta4Solver(100)).sample(cond, 3, generator())
    got = head.sample(cond, 3, generator())
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-7)
    assert head.sample(conditions(0), 3).shape == (3, 0, 3)


def test_all_samples_share_one_time():
    """The modulations are computed once per position and step, whatever the samples."""
    head = small()
    shapes = []
    head.velocity.time_embedding.register_forward_hook(lambda *a: shapes.append(a[1][0].shape))
    head.sample(conditions(2, 3), 5, seeded())
    head.log_prob(conditions(2, 3), torch.zeros(2, 3, 3))
    assert set(shapes) == {(1, 1, 1)}


def test_sampling_and_density_compile_in_one_graph():
    head, cond = small(solver=HeunSolver(2)), conditions(2)
    noise = torch.randn(3, 2, 3, generator=seeded())

    def run(cond, noise):
        return head.sample_from(cond, noise), head.log_prob(cond, noise[0], solver=EulerSolver(1))

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(cond, noise), run(cond, noise))


def test_guided_sampling_by_hand():
    """Euler steps along (1 - w) v(null) + w v(cond)."""
    head, cond, null = (
        small(solver=EulerSolver(4)),
        conditions(2),
        torch.randn(4, generator=seeded(3)),
    )
    x = torch.randn(3, 2, 3, generator=seeded())
    got = head.sample_guided(cond, null, 2.5, 3, seeded())
    for k in range(4):
        time = torch.full((3, 2), k / 4)
        without = head.velocity(x, time, null.expand(2, 4))
        x = x + ((1 - 2.5) * without + 2.5 * head.velocity(x, time, cond)) / 4
    torch.testing.assert_close(got, x)


# ---- log-density ----


def test_log_prob_is_the_change_of_variables_of_sampling():
    """log p(z) + log |det dz / dx_0| is the noise's log-density, row by row."""
    solver = RungeKutta4Solver(50)
    head = smooth(3).with_sampling(solver=solver)
    cond, noise = conditions(4), torch.randn(4, 3, generator=seeded())
    want = torch.zeros(4)
    for row in range(4):

        def sampled(x, row=row):
            return head.sample_from(cond[row], x[None])[0]

        jacobian = torch.autograd.functional.jacobian(sampled, noise[row])
        of_noise = -0.5 * noise[row].square().sum() - 1.5 * math.log(2 * math.pi)
        want[row] = of_noise - jacobian.slogdet().logabsdet
    samples = head.sample_from(cond, noise[None])[0]
    got = head.log_prob(cond, samples, solver=solver)
    torch.testing.assert_close(got, want, rtol=0.0, atol=1e-7)


def test_estimated_log_prob_is_unbiased():
    """The mean over all sign vectors is exact, for the same solver."""
    head, cond = small(), conditions(2)
    latents = torch.randn(2, 3, generator=seeded())
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)[:, None].expand(-1, 2, -1)
    want = head.log_prob(cond, latents)
    torch.testing.assert_close(head.estimated_log_prob(cond, latents, signs), want)
    one = head.estimated_log_prob(cond, latents, signs[:1])
    assert (one - want).abs().min() > 1e-6


@pytest.mark.parametrize("batch", [(), (0,), (4,), (2, 3)], ids=str)
def test_log_prob_shapes_and_gradients(batch):
    head, latents = small(), torch.zeros(*batch, 3)
    got = head.log_prob(conditions(*batch), latents)
    assert got.shape == batch
    assert head.estimated_log_prob(conditions(*batch), latents, latents[None]).shape == batch
    got.sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_prob_is_computed_outside_autocast(dtype):
    """Also where condition and latents come from a layer in bfloat16."""
    head, cond = small().float(), conditions(2).to(dtype)
    latents = torch.ones(2, 3, dtype=dtype)
    want = head.log_prob(cond.float(), latents.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.log_prob(cond, latents), want)
        got = head.estimated_log_prob(cond, latents, torch.ones(1, 2, 3, dtype=dtype))
    assert got.dtype == torch.float32


# ---- the network is differentiable in time ----


@pytest.mark.parametrize("time", [0.0, 1.0, 0.37])
def test_derivative_in_time(time):
    head = small()
    x = torch.randn(2, 3, 3, generator=seeded())

    def velocity(t):
        return head.velocity(x, t.expand(2, 3), conditions(3))

    t = torch.tensor(time, requires_grad=True)
    assert torch.autograd.gradcheck(velocity, t)
    slope = torch.autograd.functional.jacobian(velocity, t)
    assert torch.isfinite(slope).all() and (slope != 0).any()


# ---- refusals ----


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="draws must be at least 1; got 0"):
        FlowHead(4, 3, draws=0)


def test_wrong_condition_is_named():
    for call in (
        lambda head, cond: head.sample_from(cond, torch.zeros(1, 2, 3)),
        lambda head, cond: head.log_prob(cond, torch.zeros(2, 3)),
    ):
        with pytest.raises(ValueError, match="cond must have cond_size = 4 features; got 5"):
            call(small(), torch.zeros(2, 5))
