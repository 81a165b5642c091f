"""Guidance: the ends are the head itself, between and beyond them an exact extrapolation."""

import pytest
import torch
from head_instances import KNOWN_HEADS, energy_head
from seeding import randomized, seeded
from torch import nn

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import AdaptiveSolver, FlowHead, GuidedHead, Head

GUIDED = {kind: known.small for kind, known in KNOWN_HEADS.items() if known.guided}

every_head = pytest.mark.parametrize(
    "make", GUIDED.values(), ids=[kind.__name__ for kind in GUIDED]
)


@every_head
def test_scale_one_and_zero_are_the_head_itself(make):
    head = randomized(GuidedHead(4, 3, head=make))
    cond = torch.randn(5, 4, generator=seeded(1))
    with_cond = head.head.sample(cond, 2, seeded(2))
    without = head.head.sample(head.null.expand(5, 4), 2, seeded(2))
    for scale, want in ((1.0, with_cond), (0.0, without)):
        assert torch.equal(head.with_sampling(scale=scale).sample(cond, 2, seeded(2)), want)
        # The guided path itself must agree with the short cut.
        guided = head.head.sample_guided(cond, head.null, scale, 2, seeded(2))
        torch.testing.assert_close(guided, want)


@every_head
def test_guidance_by_the_null_condition_changes_nothing(make):
    head = randomized(GuidedHead(4, 3, head=make))
    cond = head.null.detach().expand(5, 4)
    guided = head.with_sampling(scale=3.0)
    torch.testing.assert_close(guided.sample(cond, 2, seeded()), head.sample(cond, 2, seeded()))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_of_a_one_step_head_it_extrapolates_the_sample(scale):
    head = randomized(GuidedHead(4, 3, head=energy_head))
    cond = torch.randn(5, 4, generator=seeded(1))
    with_cond, without, got = (
        head.with_sampling(scale=w).sample(cond, 2, seeded()) for w in (1.0, 0.0, scale)
    )
    torch.testing.assert_close(got, without + scale * (with_cond - without))


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_of_a_flow_it_extrapolates_the_velocity(scale):
    """x' = c at condition c moves noise by c; guided, by (1 - w) null + w c."""

    class Constant(nn.Module):
        def forward(self, x, time, cond):
            return cond.expand_as(x)

    head = GuidedHead(3, 3, head=lambda c, n: FlowHead(c, n, width=8))
    head.head.velocity = Constant()
    with torch.no_grad():
        head.null.copy_(torch.tensor([1.0, -2.0, 0.5]))
    cond = torch.randn(5, 3, generator=seeded(1))
    noise = head.sample(cond, 2, seeded()) - cond
    want = noise + (1 - scale) * head.null + scale * cond
    torch.testing.assert_close(head.with_sampling(scale=scale).sample(cond, 2, seeded()), want)


@every_head
@pytest.mark.parametrize(("scale", "factor"), [(0.0, 1), (1.0, 1), (2.0, 2)])
def test_evaluations_are_counted(make, scale, factor):
    head = GuidedHead(4, 3, head=make, scale=scale)
    assert head.evaluations_per_sample == factor * head.head.evaluations_per_sample
    calls, network = [], KNOWN_HEADS[type(head.head)].network
    head.head.get_submodule(network).register_forward_hook(lambda *_: calls.append(1))
    head.sample(torch.zeros(2, 4), 3, seeded())
    assert len(calls) == head.evaluations_per_sample


def test_evaluations_that_depend_on_the_data_stay_unknown():
    pytest.importorskip("torchdiffeq")
    head = GuidedHead(
        4, 3, head=lambda c, n: FlowHead(c, n, width=8, solver=AdaptiveSolver()), scale=2.0
    )
    assert head.evaluations_per_sample is None


@pytest.mark.parametrize(
    "kind", [kind for kind in KNOWN_HEADS if kind not in (*GUIDED, GuidedHead)]
)
def test_a_head_that_cannot_be_guided_is_refused_before_it_is_trained(kind):
    message = rf"scale must be 0 or 1 for {kind.__name__}, which cannot be guided; got 1\.5"
    with pytest.raises(ValueError, match=message):
        GuidedHead(4, 4, head=kind, scale=1.5)
    head = GuidedHead(4, 4, head=kind, scale=0.0)
    assert head.sample(torch.zeros(2, 4), 5, seeded()).shape == (5, 2, 4)
    with pytest.raises(ValueError, match=message):
        head.with_sampling(scale=1.5)


def test_dropout_hides_the_condition_of_whole_positions():
    class Recorder(Head):
        evaluations_per_sample = 1

        def loss(self, cond, target, generator=None):
            self.seen = cond
            return cond.sum(dim=-1)

        def sample(self, cond, num_samples, generator=None):
            return cond.expand(num_samples, *cond.shape)

    head = GuidedHead(3, 3, head=Recorder, dropout=0.3)
    cond = torch.ones(2, 2, 3)
    target = DiagonalGaussian.point_mass(cond)
    uniform = torch.tensor([[0.0, 0.29], [0.31, 0.99]])
    head.loss_from(cond, target, uniform)
    want = torch.tensor([[0.0, 0.0], [1.0, 1.0]])[..., None].expand(2, 2, 3)
    assert torch.equal(head.head.seen, want)
    # About three in ten of fresh draws: 4.9 standard errors.
    many = torch.ones(10_000, 3)
    head.loss(many, DiagonalGaussian.point_mass(many), seeded())
    hidden = (head.head.seen == 0).all(dim=-1).double().mean()
    assert abs(hidden - 0.3) < 4.9 * (0.21 / 10_000) ** 0.5
    with pytest.raises(ValueError, match="Recorder cannot be guided; use scale = 0 or 1"):
        head.head.sample_guided(cond, head.null, 2.0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -0.5}, r"scale must be in \[0, inf\); got -0.5"),
        ({"scale": float("nan")}, r"scale must be in \[0, inf\); got nan"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GuidedHead(4, 3, head=energy_head, **arguments)
