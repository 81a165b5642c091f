"""Each head learns a conditional Gaussian in 2-D; with shuffled conditions none can."""

import pytest
import torch

from calmkit.distributions import DiagonalGaussian
from calmkit.heads import DDPMSampler, DiffusionHead, EnergyHead, FlowHead, NoiseSchedule

HEADS = {
    "energy": lambda: EnergyHead(2, 2, width=32, depth=2, noise_size=8),
    "flow": lambda: FlowHead(2, 2, width=32, depth=2),
    "diffusion": lambda: DiffusionHead(
        2, 2, width=32, depth=2, schedule=NoiseSchedule.cosine(200), sampler=DDPMSampler(50)
    ),
}


def target_of(cond):
    """The mean is the condition turned by a right angle; the spread is unequal."""
    mean = torch.stack([-cond[:, 1], cond[:, 0]], dim=-1)
    return DiagonalGaussian(mean, torch.tensor([0.5, 0.2], dtype=cond.dtype).expand_as(mean))


def energy_distance(head, generator):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of head and target, averaged over conditions."""
    cond = torch.randn(64, 2, generator=generator, dtype=torch.float32)
    with torch.no_grad():
        x = head.sample(cond, 64, generator).transpose(0, 1)
    y = target_of(cond).sample(64, generator).transpose(0, 1)
    pairs = 64 * 63
    within = (torch.cdist(x, x).sum((1, 2)) + torch.cdist(y, y).sum((1, 2))) / pairs
    return float((2 * torch.cdist(x, y).mean((1, 2)) - within).mean())


def trained(name, shuffle):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = HEADS[name]().float()
    steps = 200
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        cond = torch.randn(64, 2, generator=generator, dtype=torch.float32)
        seen = cond[torch.randperm(64, generator=generator)] if shuffle else cond
        optimizer.zero_grad()
        head.loss(seen, target_of(cond), generator).mean().backward()
        optimizer.step()
        schedule.step()
    return energy_distance(head, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(HEADS))
def test_learns_the_condition(name):
    distance, blind = trained(name, shuffle=False), trained(name, shuffle=True)
    # Measured: 0.003 to 0.02, and 1.2. The truth has 0.
    assert distance < 0.05
    assert blind > 0.8
