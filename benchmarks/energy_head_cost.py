"""What the energy head costs against a literal version of the published one (arXiv 2510.27688).

There the condition is copied to each of the N samples, and the first layer of a block reads
[LN(e); c] as one vector of 2d numbers. Weights, hence outputs, are the same. Counted operations
say what the saved ones alone would give.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from measuring import interleaved_seconds, peak_bytes, times_faster
from torch import Generator, Tensor, nn
from torch.nn.functional import silu
from torch.utils.flop_counter import FlopCounterMode

from calmkit.heads import EnergyHead

__all__ = ["LiteralEnergyHead", "compare_energy_heads", "largest_difference"]

# How many times faster than the literal head.
GOALS = {"training": 1.15, "sampling": 1.2}


class LiteralBlock(nn.Module):
    """A residual block of the published head: one layer reads hidden state and condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.join = nn.Linear(2 * width, width)
        self.inner = nn.Linear(width, width)
        self.gate_and_up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(width, width)

    def forward(self, hidden: Tensor, cond: Tensor) -> Tensor:
        """Add the block's branch to `hidden`; both are (samples, positions, width)."""
        x = silu(self.join(torch.cat([self.norm(hidden), cond], dim=-1)))
        x = silu(self.inner(x))
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return hidden + self.down(silu(gate) * up)


class LiteralEnergyHead(nn.Module):
    """The published head with the weights of an `EnergyHead`."""

    def __init__(self, head: EnergyHead) -> None:
        super().__init__()
        width, noise_size = head.noise_embedding.out_features, head.noise_embedding.in_features
        self.noise_embedding = nn.Linear(noise_size, width)
        self.noise_norm = nn.LayerNorm(width, eps=1e-6)
        self.cond_embedding = nn.Linear(head.cond_size, width)
        self.cond_norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(LiteralBlock(width) for _ in head.blocks)
        self.output_norm = nn.LayerNorm(width, eps=1e-6)
        self.output = nn.Sequential(
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, head.latent_size)
        )
        weights = head.state_dict()
        for block in (f"blocks.{i}" for i in range(len(head.blocks))):
            of_hidden = weights.pop(f"{block}.from_hidden.weight")
            of_cond = weights.pop(f"{block}.from_cond.weight")
            weights[f"{block}.join.weight"] = torch.cat([of_hidden, of_cond], dim=1)
            weights[f"{block}.join.bias"] = weights.pop(f"{block}.from_cond.bias")
        self.load_state_dict(weights)

    def sample_from(self, cond: Tensor, noise: Tensor) -> Tensor:
        """Samples (N, positions, latent) from conditions and noise of each sample."""
        cond = cond.expand(len(noise), *cond.shape)
        cond = self.cond_norm(self.cond_embedding(cond))
        hidden = self.noise_norm(self.noise_embedding(noise))
        for block in self.blocks:
            hidden = block(hidden, cond)
        return self.output(self.output_norm(hidden))


EnergyNetwork = EnergyHead | LiteralEnergyHead


def compare_energy_heads(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Forward and backward with N samples, then sampling of many candidates."""
    generator = Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)

    head = EnergyHead(args.hidden, args.latent, width=args.hidden, depth=args.depth)
    head = head.to(device, torch.float32)
    with torch.no_grad():  # biases and norms start at 0 and 1, which hides a wrong one
        for parameter in head.parameters():
            parameter += 0.02 * draw(*parameter.shape)
    literal = LiteralEnergyHead(head).to(device)
    networks: dict[str, EnergyNetwork] = {"calmkit": head, "literal": literal}
    rows = []
    for task, make_work, count, positions in (
        ("training", training_work, args.samples, args.positions),
        ("sampling", sampling_work, args.candidates, args.sampling_positions),
    ):
        cond, noise = draw(positions, args.hidden), draw(count, positions, head.noise_size)
        difference = largest_difference(head, literal, cond, noise)
        if not difference < 1e-4:
            raise RuntimeError(f"both heads must give the same; they differ by {difference:.1e}.")
        works = {name: make_work(network, cond, noise) for name, network in networks.items()}
        seconds = interleaved_seconds(works, args.rounds, device, clock=args.clock)
        size = {name: peak_bytes(work, device) for name, work in works.items()}
        operations = {name: count_operations(work) for name, work in works.items()}
        rows.append(
            {
                "task": task,
                "samples": count,
                "positions": positions,
                "difference": difference,
                "milliseconds": {k: 1e3 * statistics.median(v) for k, v in seconds.items()},
                "megabytes": {k: v / 1e6 for k, v in size.items()},
                "times_faster": times_faster(seconds["calmkit"], seconds["literal"]),
                "times_faster_wanted": GOALS[task],
                "times_fewer_operations": operations["literal"] / operations["calmkit"],
                "times_smaller": size["literal"] / size["calmkit"],
            }
        )
    return rows


def training_work(network: EnergyNetwork, cond: Tensor, noise: Tensor) -> Callable[[], None]:
    """Work to measure: samples, and the gradient of their sum in conditions and weights."""

    def work() -> None:
        network.sample_from(cond.detach().requires_grad_(), noise).sum().backward()
        network.zero_grad()

    return work


def sampling_work(network: EnergyNetwork, cond: Tensor, noise: Tensor) -> Callable[[], None]:
    """Work to measure: samples without a gradient."""

    @torch.no_grad()
    def work() -> None:
        network.sample_from(cond, noise)

    return work


def largest_difference(
    ours: EnergyNetwork, theirs: EnergyNetwork, cond: Tensor, noise: Tensor
) -> float:
    """Of samples and of the gradient of their sum in the conditions, as shares of the largest."""
    pairs = []
    for network in (ours, theirs):
        leaf = cond.detach().requires_grad_()
        samples = network.sample_from(leaf, noise)
        pairs.append((samples.detach(), *torch.autograd.grad(samples.sum(), leaf)))
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*pairs, strict=True))


def count_operations(work: Callable[[], None]) -> int:
    """Multiplications and additions of all matrix products."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
