"""Short seeded trainings of a head, and how far its samples end from the target."""

import torch

from calmkit.distributions import DiagonalGaussian


def energy_distance(x, y):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| over the first axis, averaged over any before it."""

    def within(a):
        return torch.cdist(a, a).sum((-2, -1)) / (a.shape[-2] * (a.shape[-2] - 1))

    between = torch.cdist(x, y).mean((-2, -1))
    return float((2 * between - within(x) - within(y)).mean())


def train(build, batch, steps, lr=5e-3):
    """A head built and trained from seed 0; `batch(generator)` gives (cond, target)."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = build().float()
    optimizer = torch.optim.Adam(head.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        head.loss(*batch(generator), generator).mean().backward()
        optimizer.step()
        schedule.step()
    return head


def turned(cond):
    """The mean is the condition turned by a right angle; the spread is unequal."""
    mean = torch.stack([-cond[:, 1], cond[:, 0]], dim=-1)
    return DiagonalGaussian(mean, torch.tensor([0.5, 0.2], dtype=cond.dtype).expand_as(mean))


def distance_of_a_conditional_gaussian(build, *, shuffle, **sampling):
    """After a training in which the condition is the target's, or that of another position."""

    def batch(generator):
        cond = torch.randn(64, 2, generator=generator, dtype=torch.float32)
        seen = cond[torch.randperm(64, generator=generator)] if shuffle else cond
        return seen, turned(cond)

    head = train(build, batch, steps=200)
    generator = torch.Generator().manual_seed(1)
    cond = torch.randn(64, 2, generator=generator, dtype=torch.float32)
    with torch.no_grad():
        x = head.sample(cond, 64, generator, **sampling).transpose(0, 1)
    return energy_distance(x, turned(cond).sample(64, generator).transpose(0, 1))


def two_modes(count, generator):
    """Equal parts of two narrow Gaussians three apart."""
    side = torch.randint(2, (count, 1), generator=generator) * 3.0 - 1.5
    noise = 0.3 * torch.randn(count, 2, generator=generator)
    return (noise + side * torch.tensor([0.8, 0.6])).float()


def distance_of_two_modes(build, **sampling):
    nothing = torch.zeros(128, 1, dtype=torch.float32)
    head = train(
        build,
        lambda generator: (nothing, DiagonalGaussian.point_mass(two_modes(128, generator))),
        steps=250,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        x = head.sample(nothing[0], 1000, generator, **sampling)
    return energy_distance(x, two_modes(1000, generator))
