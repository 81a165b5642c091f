r"""What heads cost, and what the evaluations of a solver buy.

- The energy head against a literal version of the published one (arXiv 2510.27688): there the
  condition is copied to each of the N samples, and the first layer of a block reads [LN(e); c] as
  one vector of 2d numbers. Weights, hence outputs, are the same. Counted operations say what the
  saved ones alone would give.
- Samples per second of each head, at a width that gives them all about the same parameters.
- Quality against evaluations of the flow's solvers and the diffusion's samplers. The target is a
  mixture of Gaussians, for which the optimal velocity and noise estimate are closed forms. Those
  stand in for the network, so that what is left is the solver's error and the sampling floor.

The distance is the energy distance of samples X to the target Y,

    D^2 = 2 E||X - Y|| - E||X - X'|| - E||Y - Y'||,

with expectations over Y in closed form. Near the target D falls with the order of a solver.
Samples start from a scrambled Sobol net, whose own D is far below that of independent draws,
sqrt(E||Y - Y'|| / n). A sampler that adds noise on its way cannot fall much below the latter.

On the CPU the clock counts processor seconds of one thread: other work on the machine hardly
enters.

    python benchmarks/heads_micro.py --json heads_micro.json --plot heads_micro.png
"""

import argparse
import inspect
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from measuring import environment, interleaved_seconds, log_log_slope, peak_bytes, times_faster
from torch import Generator, Tensor, nn
from torch.nn.functional import silu
from torch.utils.flop_counter import FlopCounterMode

from calmkit import heads
from calmkit.heads import (
    AdaptiveSolver,
    DDIMSampler,
    DDPMSampler,
    DiffusionHead,
    DPMSolverSampler,
    EnergyHead,
    EulerSolver,
    FixedVariance,
    FlowHead,
    Head,
    HeunSolver,
    MidpointSolver,
    RungeKutta4Solver,
)
from calmkit.scoring import folded_normal_mean

# How many times faster than the literal head.
GOALS = {"training": 1.15, "sampling": 1.2}
EVALUATIONS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
TOLERANCES = [10**-k for k in (1, 1.5, 2, 2.5, 3, 4, 5)]


# 1. The energy head against the published one.
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


# 2. Samples per second of each head.
def every_head() -> dict[str, Callable[..., Head]]:
    """The public heads; not those that wrap another head."""
    return {
        name: value
        for name, value in vars(heads).items()
        if inspect.isclass(value) and issubclass(value, Head) and not inspect.isabstract(value)
        if "head" not in inspect.signature(value).parameters
    }


def count_parameters(head: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in head.parameters())


def fit_width(build: Callable[..., Head], wanted: int) -> int:
    """The multiple of 8 at which the number of parameters comes closest to `wanted`."""

    @cache
    def size(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(build(width=width))

    high = 8
    while size(high) < wanted:
        high *= 2
    low = 8
    while high - low > 8:
        middle = (low + high) // 16 * 8
        low, high = (middle, high) if size(middle) < wanted else (low, middle)
    return min((low, high), key=lambda width: abs(size(width) - wanted))


def compare_heads(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Samples per second of each head with its defaults, at about equal numbers of parameters."""
    wanted = count_parameters(EnergyHead(args.head_cond, args.latent, width=args.head_width))
    generator = Generator(device).manual_seed(1)
    shape = (args.head_positions, args.head_cond)
    cond = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    rows, works = {}, {}
    for name, build in every_head().items():
        options = {}
        if "width" in inspect.signature(build).parameters:
            options["width"] = fit_width(partial(build, args.head_cond, args.latent), wanted)
        head = build(args.head_cond, args.latent, **options).to(device, torch.float32).eval()
        parameters = count_parameters(head)
        rows[name] = {
            "head": name,
            "width": options.get("width"),
            "parameters": parameters,
            "share_of_parameters_wanted": parameters / wanted,
            "evaluations": head.evaluations_per_sample,
        }

        @torch.no_grad()
        def work(head: Head = head) -> None:
            head.sample(cond, args.head_samples, generator)

        works[name] = work
    seconds = interleaved_seconds(works, args.head_rounds, device, clock=args.clock)
    count = args.head_samples * args.head_positions
    for name, row in rows.items():
        row["samples_per_second"] = count / statistics.median(seconds[name])
    return list(rows.values())


# 3. Quality against evaluations.
@dataclass(frozen=True)
class Mixture:
    """Mixture of Gaussians N(m_k, s^2 I) in two dimensions, with its optimal estimates.

    Attributes:
        weights: Of the components; they add up to 1.
        means: m_k, one a row.
        std: s.
    """

    weights: Tensor
    means: Tensor
    std: float

    @staticmethod
    def ring(device: torch.device, components: int = 8, std: float = 0.2) -> "Mixture":
        """Components on a circle, of unequal weights; variance about 1 per dimension."""
        number = torch.arange(components, dtype=torch.float64, device=device)
        angle = 2 * math.pi / components * number
        radius = math.sqrt(2 * (1 - std**2))
        means = radius * torch.stack([angle.cos(), angle.sin()], dim=-1)
        return Mixture((number + 1) / (number + 1).sum(), means, std)

    def estimates(self, x: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """E[z | x] and E[eps | x] at x = a z + b eps, with a z of the mixture and eps ~ N(0, I).

        Given its component k, x ~ N(a m_k, v I) with v = a^2 s^2 + b^2; which component it is has
        probability softmax_k(log w_k - ||x - a m_k||^2 / (2 v)).
        """
        variance = (a * self.std).square() + b.square()
        norms = self.means.square().sum(dim=-1)
        logits = self.weights.log() + (a * (x @ self.means.T) - a.square() * norms / 2) / variance
        mean = logits.softmax(dim=-1) @ self.means
        residual = (x - a * mean) / variance
        return mean + a * self.std**2 * residual, b * residual

    def draw(self, uniform: Tensor) -> Tensor:
        """Samples (n, 2) from n points of the unit cube."""
        component = torch.searchsorted(self.weights.cumsum(0), uniform[:, 0].contiguous())
        component = component.clamp_max(len(self.weights) - 1)
        return self.means[component] + self.std * normal_points(uniform[:, 1:])

    def mean_distance(self) -> float:
        """E||Y - Y'||, within the precision of `distance`."""
        along = self.means @ directions(self.means)
        apart = along[:, None] - along
        mean = folded_normal_mean(apart, torch.full_like(apart, math.sqrt(2) * self.std))
        return float(math.pi / 2 * (self.weights @ mean.mean(dim=-1) @ self.weights))

    def distance(self, samples: Tensor) -> float:
        """The energy distance D of the empirical law of samples (n, 2) to the mixture.

        As ||v|| = pi/2 times the mean of |u . v| over unit vectors u, the work is that of sorting
        the samples along each direction instead of taking all pairs.
        """
        u = directions(self.means)
        along, count = (samples @ u).T.contiguous().sort(dim=-1).values, len(samples)
        target = torch.zeros_like(along)
        for weight, mean in zip(self.weights, self.means @ u, strict=True):
            apart = along - mean[:, None]
            target += weight * folded_normal_mean(apart, torch.full_like(apart, self.std))
        # A gap between neighbours is part of the distance of i samples below to n - i above.
        below = torch.arange(1, count, dtype=along.dtype, device=along.device)
        pairs = along.diff(dim=-1) @ (2 * below * (count - below) / count**2)
        square = math.pi / 2 * float((2 * target.mean(dim=-1) - pairs).mean())
        return math.sqrt(max(square - self.mean_distance(), 0.0))


def directions(like: Tensor, count: int = 32) -> Tensor:
    """Unit vectors (2, count), evenly over half a turn."""
    angle = math.pi / count * (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5)
    return torch.stack([angle.cos(), angle.sin()])


def sobol_points(count: int, size: int, seed: int, device: torch.device) -> Tensor:
    """A scrambled net in the unit cube, of float64."""
    points = torch.quasirandom.SobolEngine(size, scramble=True, seed=seed)
    return points.draw(count, dtype=torch.float64).to(device)


def normal_points(uniform: Tensor) -> Tensor:
    """Points of the unit cube, moved so that they are standard normal."""
    return torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))


class OptimalNetwork(nn.Module):
    """Stands in for the network of a head, and counts its calls."""

    def __init__(self, output: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output
        self.calls = 0

    def forward(self, x: Tensor, time: Tensor, cond: Tensor) -> Tensor:
        """The output at x and its time, whatever the condition."""
        self.calls += 1
        return self.output(x, time[..., None])


def optimal_flow(target: Mixture) -> tuple[FlowHead, OptimalNetwork]:
    """A head, and its network: the velocity E[z - x_0 | x_t]."""

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        clean, noise = target.estimates(x, time, 1 - time)
        return clean - noise

    head = FlowHead(1, 2, width=1, depth=1)
    network = OptimalNetwork(velocity)
    head.add_module("velocity", network)
    return head, network


def optimal_diffusion(target: Mixture) -> tuple[DiffusionHead, OptimalNetwork]:
    """A head, and its network: the velocity a E[eps | x_t] - b E[z | x_t]."""
    head = DiffusionHead(1, 2, width=1, depth=1, variance=FixedVariance())
    schedule = head.schedule

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        step = (time * len(schedule)).round().long().cpu()
        a, b = (scale[step].to(x) for scale in (schedule.signal_scale, schedule.noise_scale))
        clean, noise = target.estimates(x, a, b)
        return a * noise - b * clean

    network = OptimalNetwork(velocity)
    head.add_module("network", network)
    return head, network


def compare_solvers(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Energy distance of each solver and sampler at each number of evaluations."""
    target, count = Mixture.ring(device), args.points
    (flow, velocity), (diffusion, denoiser) = optimal_flow(target), optimal_diffusion(target)
    cond = torch.zeros(1, dtype=torch.float64, device=device)
    start = normal_points(sobol_points(count, 2, 0, device))
    generator = Generator(device).manual_seed(2)

    def follow(solver: Any) -> Tensor:
        return flow.sample_from(cond, start, solver=solver)

    def reverse(sampler: Any) -> Tensor:
        def draw() -> Tensor:
            return torch.randn(start.shape, generator=generator, dtype=start.dtype, device=device)

        return sampler.run(diffusion.denoiser(cond), diffusion.schedule, start, draw)

    # Name: head, how to run, parts that are tried.
    tried: dict[str, tuple[Head, Callable[[Any], Tensor], list[Any]]] = {}
    for kind in (EulerSolver, MidpointSolver, HeunSolver, RungeKutta4Solver):
        stages = kind(1).evaluations
        steps = [n // stages for n in args.evaluations if n % stages == 0]
        tried[kind.__name__.removesuffix("Solver")] = (flow, follow, [kind(n) for n in steps])
    adaptive = [AdaptiveSolver(rtol=r, atol=r) for r in args.tolerances]
    tried["Adaptive"] = (flow, follow, adaptive)
    for name, kind, options in (
        ("DDPM", DDPMSampler, {}),
        ("DDIM, eta = 1", DDIMSampler, {"eta": 1.0}),
        ("DDIM", DDIMSampler, {}),
        ("DPM-Solver++", DPMSolverSampler, {}),
    ):
        tried[name] = (diffusion, reverse, [kind(n, **options) for n in args.evaluations])
    floors = {
        "independent draws": math.sqrt(target.mean_distance() / count),
        "Sobol net": target.distance(target.draw(sobol_points(count, 3, 1, device))),
    }
    curves = {}
    for name, (head, run, parts) in tried.items():
        network = velocity if head is flow else denoiser
        evaluations, distances = [], []
        for part in parts:
            network.calls = 0
            distances.append(target.distance(run(part)))
            evaluations.append(network.calls)
        floor = "independent draws" if name in ("DDPM", "DDIM, eta = 1") else "Sobol net"
        curves[name] = {
            "head": type(head).__name__,
            "evaluations": evaluations,
            "distance": distances,
            "floor": floor,
            "slope": last_slope(evaluations, distances, 4 * floors[floor]),
        }
    return {
        "points": count,
        "start": target.distance(start),
        "floors": floors,
        "curves": curves,
        "needed": {
            str(limit): {name: evaluations_needed(curve, limit) for name, curve in curves.items()}
            for limit in args.distances
        },
    }


def last_slope(evaluations: list[int], distances: list[float], least: float) -> float | None:
    """The power of evaluations that D follows over the last three points where D > `least`."""
    points = [(n, d) for n, d in zip(evaluations, distances, strict=True) if d > least][-3:]
    return log_log_slope(*zip(*points, strict=True)) if len(points) == 3 else None


def evaluations_needed(curve: Mapping[str, Any], limit: float) -> int | None:
    """The least number tried from which on D stays at or below a limit."""
    pairs = sorted(zip(curve["evaluations"], curve["distance"], strict=True), reverse=True)
    good = list(itertools.takewhile(lambda pair: pair[1] <= limit, pairs))
    return good[-1][0] if good else None


def add_speed(results: dict[str, Any]) -> None:
    """Samples per second of each solver where it reaches a distance, from the heads' speed."""
    per_evaluation = {
        row["head"]: row["samples_per_second"] * row["evaluations"]
        for row in results["heads"]
        if row["evaluations"] is not None
    }
    solvers = results["solvers"]
    solvers["samples_per_second"] = {
        limit: {
            name: n and per_evaluation[solvers["curves"][name]["head"]] / n
            for name, n in needed.items()
        }
        for limit, needed in solvers["needed"].items()
    }


def show(results: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    print("Energy head | literal; times faster (in single rounds), fewer operations, smaller")
    for row in results["energy"]:
        (t, their_t), (m, their_m) = (row[k].values() for k in ("milliseconds", "megabytes"))
        faster = row["times_faster"]
        print(
            f"    {row['task']:9s}{row['samples']:4d} samples, {row['positions']:4d} positions:"
            f"{t:8.1f} | {their_t:7.1f} ms {m:8.1f} | {their_m:7.1f} MB\n"
            f"        faster {faster['median']:.3f} ({faster['least']:.3f} to "
            f"{faster['most']:.3f}; goal {row['times_faster_wanted']}), operations "
            f"{row['times_fewer_operations']:.3f}, memory {row['times_smaller']:.2f}; "
            f"largest difference {row['difference']:.0e}"
        )
    print("\nHeads: width, parameters, evaluations and samples per second")
    for row in results["heads"]:
        width, evaluations = row["width"] or "-", row["evaluations"] or "-"
        print(
            f"    {row['head']:18s}{width:>5} {row['parameters'] / 1e6:7.2f} M"
            f" ({100 * row['share_of_parameters_wanted']:5.1f} %) {evaluations:>4}"
            f" {row['samples_per_second']:10.0f} /s"
        )
    solvers = results["solvers"]
    floors = ", ".join(f"{name} {value:.5f}" for name, value in solvers["floors"].items())
    print(f"\nEnergy distance to the target at so many evaluations; {solvers['points']} samples")
    print(f"    normal noise {solvers['start']:.3f}; floors: {floors}")
    for name, curve in solvers["curves"].items():
        slope = curve["slope"]
        print(f"    {name}" + ("" if slope is None else f" (slope {slope:.2f})"))
        pairs = list(zip(curve["evaluations"], curve["distance"], strict=True))
        for i in range(0, len(pairs), 7):
            print("       " + "".join(f"{n:5d}: {d:.4f}" for n, d in pairs[i : i + 7]))
    print("\nEvaluations to reach a distance, and samples per second then")
    for limit, needed in solvers["needed"].items():
        print(f"    D = {limit}")
        for name, n in needed.items():
            speed = solvers["samples_per_second"][limit][name]
            print(
                f"        {name:15s}" + ("not reached" if n is None else f"{n:5d}{speed:9.0f} /s")
            )


def draw_plot(solvers: Mapping[str, Any], path: Path) -> None:
    """Energy distance against evaluations, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, curve in solvers["curves"].items():
        style = "o-" if curve["head"] == "FlowHead" else "s--"
        axes.loglog(curve["evaluations"], curve["distance"], style, label=name, markersize=4)
    for (name, floor), style in zip(solvers["floors"].items(), ("-.", ":"), strict=True):
        axes.axhline(floor, color="gray", linestyle=style, label=f"floor: {name}")
    axes.set(
        title="Exact fields of a mixture of Gaussians: flow (lines), diffusion (dashes)",
        xlabel="evaluations per sample",
        ylabel="energy distance to the target",
    )
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Cost of heads, quality of solvers.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--hidden", type=int, default=1024, help="width and condition")
    parser.add_argument("--latent", type=int, default=128, help="size of a latent")
    parser.add_argument("--depth", type=int, default=4, help="blocks")
    parser.add_argument("--samples", type=int, default=8, help="N in training")
    parser.add_argument("--positions", type=int, default=128, help="positions in training")
    parser.add_argument("--candidates", type=int, default=200, help="samples when sampling")
    parser.add_argument("--sampling-positions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9, help="turns of the two energy heads")
    parser.add_argument("--head-cond", type=int, default=512, help="condition of every head")
    parser.add_argument(
        "--head-width", type=int, default=512, help="of the energy head that sets the parameters"
    )
    parser.add_argument("--head-samples", type=int, default=16)
    parser.add_argument("--head-positions", type=int, default=16)
    parser.add_argument("--head-rounds", type=int, default=3, help="turns of every head")
    parser.add_argument("--points", type=int, default=2**15, help="samples of the curves")
    parser.add_argument("--evaluations", type=int, nargs="+", default=EVALUATIONS)
    parser.add_argument("--tolerances", type=float, nargs="+", default=TOLERANCES)
    parser.add_argument(
        "--distances", type=float, nargs="+", default=[0.1, 0.03, 0.01], help="to be reached"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw the curves in this PNG")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    alone = args.device.type == "cpu" and args.threads == 1
    args.clock = time.process_time if alone else time.perf_counter
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "clock": "processor seconds" if alone else "wall-clock seconds",
        "energy": compare_energy_heads(args, args.device),
        "heads": compare_heads(args, args.device),
        "solvers": compare_solvers(args, args.device),
    }
    add_speed(results)
    show(results)
    text = json.dumps({**environment(args.device), "results": results}, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")
    if args.plot is not None:
        draw_plot(results["solvers"], args.plot)


if __name__ == "__main__":
    main()
