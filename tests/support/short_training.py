"""Targets of two dimensions, short seeded trainings on them, and how far samples end from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.typing import unchecked


@dataclass(frozen=True)
class Target:
    """A law of vectors given conditions.

    Attributes:
        conditions: Draws rows of conditions, from (count, generator).
        outcome: What a head is shown for each condition, from (cond, generator).
        evaluated: Conditions, and samples of each, over which a distance is taken.
    """

    conditions: Callable[[int, torch.Generator], Tensor]
    outcome: Callable[[Tensor, torch.Generator], DiagonalGaussian]
    evaluated: tuple[int, int]

    def draw(self, cond, count, generator):
        """Independent outcomes (count, *batch, 2) for each condition."""
        return self.outcome(cond.expand(count, *cond.shape), generator).sample(1, generator)[0]


def turned(cond, generator=None):
    """The mean is the condition turned by a right angle; the spread is unequal."""
    mean = torch.stack([-cond[..., 1], cond[..., 0]], dim=-1)
    return DiagonalGaussian(mean, torch.tensor([0.5, 0.2], dtype=cond.dtype).expand_as(mean))


def moons(cond, generator):
    """Two half circles, each reaching into the other; turned by a right angle where cond is 1."""
    shape = cond.shape[:-1]
    angle = torch.rand(shape, generator=generator, dtype=cond.dtype) * math.pi
    side = torch.randint(2, shape, generator=generator).to(cond.dtype) * 2 - 1
    x = side * (0.5 - angle.cos()) + 0.5
    y = side * (0.25 - angle.sin()) + 0.25
    z = torch.where(cond > 0.5, torch.stack([-y, x], dim=-1), torch.stack([x, y], dim=-1))
    noise = 0.1 * torch.randn(z.shape, generator=generator, dtype=z.dtype)
    return DiagonalGaussian.point_mass(z + noise)


def ring(cond, generator):
    """Eight narrow Gaussians on a circle off the origin, whatever the condition."""
    angle = torch.randint(8, cond.shape[:-1], generator=generator).to(cond.dtype) * math.pi / 4
    circle = 1.4 * torch.stack([angle.cos(), angle.sin()], dim=-1)
    noise = 0.1 * torch.randn(circle.shape, generator=generator, dtype=cond.dtype)
    return DiagonalGaussian.point_mass(circle + noise + torch.tensor([0.5, -0.5]).to(cond))


def _normal(count, generator):
    return torch.randn(count, 2, generator=generator, dtype=torch.float32)


def _alternating(count, generator):
    return (torch.arange(count) % 2)[:, None].float().expand(count, 2)


def _constant(count, generator):
    return torch.zeros(count, 2, dtype=torch.float32)


TARGETS = {
    "gaussian": Target(_normal, turned, (64, 64)),
    "moons": Target(_alternating, moons, (2, 2000)),
    "ring": Target(_constant, ring, (1, 2000)),
}


def grained(cond, generator):
    """Two clusters on opposite sides: their direction is set by the row, how far by the column."""
    row, column = cond.unbind(-1)
    direction = torch.stack([(math.pi / 2 * row).cos(), (math.pi / 2 * row).sin()], dim=-1)
    side = torch.randint(2, row.shape, generator=generator).to(cond.dtype) * 2 - 1
    noise = 0.1 * torch.randn(cond.shape, generator=generator, dtype=cond.dtype)
    return DiagonalGaussian.point_mass((side * (1 + column / 2))[..., None] * direction + noise)


def _grids(count, generator):
    """Pictures (count, 5, 6) of conditions, each with an offset of its own."""
    sides = torch.linspace(-1, 1, 5), torch.linspace(-1, 1, 6)
    places = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).float()
    return places + 0.2 * torch.rand(count, 1, 1, 2, generator=generator, dtype=torch.float32)


PICTURE = Target(_grids, grained, (4, 200))


def train(build, target, *, steps, lr, shuffle=False, seed=0, batch=128):
    """A head built and trained from a seed; shuffled, each sees another position's condition."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = build(2, 2).float()
    of_its_own = torch.Generator().manual_seed(seed)
    head.start_from(target.outcome(target.conditions(batch, of_its_own), of_its_own), of_its_own)
    optimizer = torch.optim.Adam(head.parameters(), lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        with unchecked(step > 0):  # shapes are those of the first step
            cond = target.conditions(batch, generator)
            seen = cond[torch.randperm(batch, generator=generator)] if shuffle else cond
            optimizer.zero_grad()
            head.loss(seen, target.outcome(cond, generator), generator).mean().backward()
        optimizer.step()
        schedule.step()
    return head.requires_grad_(False)


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over the samples, averaged over the batch.

    Both are `samples *batch 2`. Zero in the mean where the laws agree: it may be negative.
    """
    x, y = (z.flatten(1, -2).transpose(0, 1) for z in (x, y))

    def within(a):
        return torch.cdist(a, a).sum((-2, -1)) / (a.shape[-2] * (a.shape[-2] - 1))

    return float((2 * torch.cdist(x, y).mean((-2, -1)) - within(x) - within(y)).mean())
