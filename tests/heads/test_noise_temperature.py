"""Noise temperature: the noise's law, and that it scales samples of a linear sampler exactly."""

import math
from dataclasses import dataclass

import pytest
import torch
from head_instances import KNOWN_HEADS
from scipy.stats import kstest, truncnorm
from seeding import seeded

from calmkit.heads import (
    CosineSchedule,
    DDPMSampler,
    DiffusionHead,
    FixedVariance,
    FlowHead,
    FlowMapHead,
    MeanFlowHead,
    MidpointSolver,
    ReverseSampler,
    SplineFlowHead,
)

TEMPERED = [FlowHead, DiffusionHead, MeanFlowHead, FlowMapHead, SplineFlowHead]


class Affine(torch.nn.Module):
    """Stands where a network stands: A x + b, whatever the times and the condition."""

    def forward(self, x, *_):
        matrix = torch.tensor([[0.3, 0.5, 0.0], [-0.2, 0.1, 0.4], [0.0, 0.3, -0.6]]).to(x)
        return x @ matrix + torch.tensor([1.0, -2.0, 0.5]).to(x)


def flow_head(**settings):
    head = FlowHead(4, 3, width=4, depth=1, solver=MidpointSolver(3), **settings)
    head.velocity = Affine()
    return head


def average_velocity_head(kind):
    def build(**settings):
        head = kind(4, 3, width=4, depth=1, steps=3, **settings)
        head.velocity = Affine()
        return head

    return build


def diffusion_head(**settings):
    """Each of the steps adds noise."""
    schedule, variance = CosineSchedule(20), FixedVariance()
    head = DiffusionHead(
        4, 3, width=4, depth=1, schedule=schedule, variance=variance, sampler=DDPMSampler(6),
        **settings,
    )  # fmt: skip
    head.network = Affine()
    return head


LINEAR = {
    "flow": flow_head,
    "diffusion": diffusion_head,
    "mean flow": average_velocity_head(MeanFlowHead),
    "flow map": average_velocity_head(FlowMapHead),
}


def samples_of(head, count=200):
    # The affine networks have no weights of their own, and the head float64.
    return head.double().sample(torch.zeros(2, 4), count, seeded())


def guided_samples(head):
    return head.double().sample_guided(torch.zeros(2, 4), torch.ones(4), 2.0, 200, seeded())


@pytest.mark.parametrize("draw", [samples_of, guided_samples])
@pytest.mark.parametrize("name", LINEAR)
def test_samples_of_a_linear_sampler_scale_about_their_mean(name, draw):
    plain, still, cool = (draw(LINEAR[name](noise_scale=c)) for c in (1.0, 0.0, 0.3))
    torch.testing.assert_close(still, still[:1, :1].expand_as(still))
    torch.testing.assert_close(cool - still, 0.3 * (plain - still))
    assert (plain - still).std() > 0.3


def test_a_spline_flow_inverts_the_scaled_noise():
    head = KNOWN_HEADS[SplineFlowHead].small(4, 3)
    cond, noise = torch.randn(5, 4, generator=seeded(1)), torch.randn(6, 5, 3, generator=seeded())
    torch.testing.assert_close(
        head.with_sampling(noise_scale=0.3).sample(cond, 6, seeded()),
        head.sample_from(cond, 0.3 * noise),
    )


class Still(torch.nn.Module):
    """A velocity of zero."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, *_):
        return self.weight * x


def noise_of(head, count=20_000, dtype=torch.float64):
    """The noise itself: where the velocity is zero it is the sample."""
    head.velocity = Still()
    return head.to(dtype).sample(torch.zeros(4, dtype=dtype), count, seeded()).detach().flatten()


@pytest.mark.parametrize("bound", [0.1, 1.5, 12.0])
def test_truncated_noise_is_a_truncated_normal(bound):
    noise = noise_of(flow_head(truncation=bound))
    assert noise.abs().max() <= bound
    assert kstest(noise.numpy(), truncnorm(-bound, bound).cdf).pvalue > 1e-6
    scaled = noise_of(flow_head(truncation=bound, noise_scale=0.3))
    torch.testing.assert_close(scaled, 0.3 * noise)


def test_other_truncations_and_the_plain_normal_are_told_apart():
    noise = noise_of(flow_head(truncation=1.5)).numpy()
    for other in (truncnorm(-1.6, 1.6), truncnorm(-math.inf, math.inf)):
        assert kstest(noise, other.cdf).pvalue < 1e-6


def test_half_precision_is_drawn_in_full_and_rounded():
    noise = noise_of(flow_head(truncation=1.5), dtype=torch.bfloat16)
    assert noise.dtype == torch.bfloat16
    # Uniform draws in bfloat16 have at most 256 values, and so would the noise.
    assert len(noise.float().unique()) > 1000


def test_the_smallest_uniform_draw_gives_the_bound(monkeypatch):
    """Where erf(r / sqrt 2) is rounded to 1, the inverse would be infinite."""

    def smallest(shape, generator, *, dtype, device):
        return torch.zeros(shape, dtype=dtype, device=device)

    monkeypatch.setattr("calmkit.heads.temperature.standard_uniform", smallest)
    noise = noise_of(flow_head(truncation=12.0), count=1)
    assert torch.equal(noise, torch.full_like(noise, -12.0))


@dataclass(frozen=True)
class Adding(ReverseSampler):
    """Returns the first noise that is added after the start."""

    steps: int = 1

    noises = 1

    def visited(self, schedule):
        return schedule.even_steps(1)

    def moves(self, chain):
        raise NotImplementedError

    def run(self, denoise, schedule, start, draw):
        return draw()


def test_noise_that_a_diffusion_sampler_adds_is_scaled_and_truncated_too():
    head = DiffusionHead(4, 3, width=4, sampler=Adding(), truncation=1.5, noise_scale=2.0)
    noise = samples_of(head, 2000)
    assert noise.abs().max() <= 3.0
    assert kstest((noise / 2).flatten().numpy(), truncnorm(-1.5, 1.5).cdf).pvalue > 1e-6


@pytest.mark.parametrize("kind", TEMPERED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_scale": -0.1}, r"noise_scale must be in \[0, inf\); got -0.1"),
        ({"noise_scale": math.nan}, r"noise_scale must be in \[0, inf\); got nan"),
        ({"truncation": 0.0}, "truncation must be positive and finite; got 0.0"),
        ({"truncation": math.inf}, "truncation must be positive and finite; got inf"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        KNOWN_HEADS[kind].small(4, 3).with_sampling(**settings)


def test_a_density_stays_that_of_the_trained_flow():
    cond, z = torch.randn(5, 4, generator=seeded(1)), torch.randn(5, 3, generator=seeded(2))
    for kind in (FlowHead, SplineFlowHead):
        head = KNOWN_HEADS[kind].small(4, 3)
        cooler = head.with_sampling(noise_scale=0.3, truncation=1.0)
        assert torch.equal(head.log_prob(cond, z), cooler.log_prob(cond, z))
