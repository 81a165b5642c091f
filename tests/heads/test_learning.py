"""Each head learns laws of two dimensions in seconds: a Gaussian, two moons, a ring of eight.

What a head can learn is its family's best approximation: the law itself, but for `GaussianHead`
and `ContrastiveHead`, which have one mode. Distances were measured with seeds 0, 1 and 2.
"""

import functools
import math

import pytest
import torch
from head_instances import KNOWN_HEADS, TEMPERATURE
from seeding import seeded
from short_training import PICTURE, TARGETS, energy_distance, train

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import (
    BlockwiseHead,
    ContrastiveHead,
    DiffusionHead,
    DriftingHead,
    EnergyHead,
    FlowHead,
    FlowMapHead,
    GaussianHead,
    GuidedHead,
    MeanFlowHead,
    MixtureHead,
    RungeKutta4Solver,
    SplineFlowHead,
    TiedMixtureHead,
)

GENERAL = [kind for kind, known in KNOWN_HEADS.items() if not known.one_mode]
LIMITED = [kind for kind, known in KNOWN_HEADS.items() if known.one_mode]

# The largest distances measured; the truth has 0, about 0.001 of noise. By chance: without the
# condition's use 1.2 for the Gaussian and 0.1 for the moons; a Gaussian of the right moments has
# 0.025 for the moons and 0.055 for the ring.
MEASURED = {
    EnergyHead: {"gaussian": 0.005, "moons": 0.006, "ring": 0.019},
    DriftingHead: {"gaussian": 0.008, "moons": 0.007, "ring": 0.022},
    SplineFlowHead: {"gaussian": 0.004, "moons": 0.001, "ring": 0.001},
    FlowHead: {"gaussian": 0.005, "moons": 0.003, "ring": 0.010},
    DiffusionHead: {"gaussian": 0.005, "moons": 0.005, "ring": 0.008},
    MeanFlowHead: {"gaussian": 0.041, "moons": 0.018, "ring": 0.018},
    FlowMapHead: {"gaussian": 0.009, "moons": 0.006, "ring": 0.013},
    MixtureHead: {"gaussian": 0.001, "moons": 0.002, "ring": 0.009},
    TiedMixtureHead: {"gaussian": 0.004, "moons": 0.005, "ring": 0.005},
    GuidedHead: {"gaussian": 0.014, "moons": 0.007, "ring": 0.017},
    BlockwiseHead: {"gaussian": 0.007, "moons": 0.015, "ring": 0.023},
}

# Where fewer steps would let a wrong spread, shift or independence of dimensions pass.
LONGER = {
    (EnergyHead, "ring"), (MeanFlowHead, "ring"), (FlowMapHead, "gaussian"),
    (GuidedHead, "moons"), (GuidedHead, "ring"),
}  # fmt: skip

every_target = pytest.mark.parametrize("target", TARGETS)


def by_kind(kinds):
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.__name__)


@functools.cache
def trained(kind, target):
    steps = 400 if kind in LIMITED or (kind, target) in LONGER else 250
    return train(KNOWN_HEADS[kind].learner, TARGETS[target], steps=steps, lr=1e-2)


def drawn(head, target):
    """Conditions, the head's samples, and the target's."""
    generator = seeded(1)
    rows, samples = target.evaluated
    cond = target.conditions(rows, generator)
    x = head.sample(cond, samples, generator)
    return cond, x, target.draw(cond, samples, generator)


def best_of_the_family(kind, cond, target):
    """The law that a head of one mode can reach, its moments from many draws."""
    z = TARGETS[target].draw(cond, 5000, seeded(2))
    mean, std = z.mean(0), z.std(0)
    if kind is ContrastiveHead:
        std = torch.full_like(std, math.sqrt(TEMPERATURE))
    return DiagonalGaussian(mean, std)


@every_target
@by_kind(GENERAL)
def test_reaches_the_target(kind, target):
    _, x, y = drawn(trained(kind, target), TARGETS[target])
    assert energy_distance(x, y) < 1.2 * MEASURED[kind][target] + 0.003


@every_target
@by_kind(LIMITED)
def test_with_one_mode_reaches_the_best_of_its_family_and_no_more(kind, target):
    cond, x, y = drawn(trained(kind, target), TARGETS[target])
    best = best_of_the_family(kind, cond, target).sample(len(x), seeded(3))
    assert energy_distance(x, best) < 0.005  # measured 0.002
    if (kind, target) == (GaussianHead, "gaussian"):
        assert energy_distance(x, y) < 0.005
    else:
        # Measured 0.025 and 0.055 for the Gaussian; 0.048, 0.062 and 0.27 for the fixed width.
        assert energy_distance(x, y) > 0.02


@by_kind(KNOWN_HEADS)
def test_without_the_right_condition_nothing_is_learned_of_it(kind):
    """Each position is shown the outcome of another one."""
    target = TARGETS["gaussian"]
    head = train(KNOWN_HEADS[kind].learner, target, steps=100, lr=1e-2, shuffle=True)
    _, x, y = drawn(head, target)
    assert energy_distance(x, y) > 0.8  # measured 1.2; with the right ones at most 0.07, or 0.48


def test_a_guided_head_learns_what_is_common_to_all_conditions_too():
    """Its scale 0 draws from the mixture of both turns of the moons."""
    _, x, y = drawn(trained(GuidedHead, "moons").with_sampling(scale=0.0), TARGETS["moons"])
    both = y.flatten(0, 1)[:, None].expand(-1, 2, 2)
    assert energy_distance(x, both) < 0.012  # measured 0.007
    assert energy_distance(x, y) > 0.05  # measured 0.1


# Measured: at most -0.03, 0.13, 1.05, 0.08 and 2.52.
@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        (MixtureHead, -0.15, 0.1),
        (TiedMixtureHead, -0.1, 0.4),
        (FlowHead, 0.0, 1.5),
        (SplineFlowHead, -0.1, 0.2),
        (GaussianHead, 2.3, 2.7),
    ],
    ids=["mixture", "tied mixture", "flow", "spline flow", "gaussian"],
)
def test_density_of_the_ring(kind, least, most):
    """Cross entropy above the truth's entropy, in nats; less than none only by chance."""
    cond, _, y = drawn(trained(kind, "ring"), TARGETS["ring"])
    y = y[:500].squeeze(1)
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.01)
    excess = -trained(kind, "ring").log_prob(cond.expand_as(y), y).mean() - entropy
    assert least < excess < most


def test_density_of_a_learned_flow_needs_no_more_steps_than_the_default():
    cond, _, y = drawn(trained(FlowHead, "ring"), TARGETS["ring"])
    y = y[:200].squeeze(1)
    cond, head = cond.expand_as(y), trained(FlowHead, "ring")
    error = head.log_prob(cond, y) - head.log_prob(cond, y, solver=RungeKutta4Solver(100))
    # Measured: at most 2e-4; 9e-3 and more with a time embedding made for 1000 discrete steps.
    assert error.abs().mean() < 1e-3


@by_kind([EnergyHead, FlowHead])
def test_learns_pictures_whose_law_changes_from_place_to_place(kind):
    """Axes `batch height width` of conditions and latents, all of them batch axes of a head."""
    head = train(KNOWN_HEADS[kind].learner, PICTURE, steps=300, lr=1e-2, batch=8)
    cond, x, y = drawn(head, PICTURE)
    assert (cond.shape, x.shape) == ((4, 5, 6, 2), (200, 4, 5, 6, 2))
    # Measured: at most 0.011; 0.15 for Gaussians of the right moments at each place, and 0.27 and
    # more for the right laws at the places across.
    assert energy_distance(x, y) < 0.03
    for axis in (2, 3):
        assert energy_distance(x, y.flip(axis)) > 0.2
