"""Quality against evaluations of the flow's solvers and the diffusion's samplers.

The optimal estimates of a mixture of Gaussians stand in for the network, so that what is left is
the solver's error and the sampling floor. Near the target the energy distance D falls with the
order of a solver. Samples start from a scrambled Sobol net, whose own D is far below that of
independent draws, sqrt(E||Y - Y'|| / n). A sampler that adds noise on its way cannot fall much
below the latter.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from known_mixture import Mixture, normal_points, sobol_points
from measuring import log_log_slope
from torch import Generator, Tensor, nn

from calmkit.heads import (
    AdaptiveSolver,
    DDIMSampler,
    DDPMSampler,
    DiffusionHead,
    DPMSolverSampler,
    EulerSolver,
    FixedVariance,
    FlowHead,
    Head,
    HeunSolver,
    MidpointSolver,
    RungeKutta4Solver,
)

__all__ = ["EVALUATIONS", "TOLERANCES", "compare_solvers", "evaluations_needed", "last_slope"]

EVALUATIONS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
TOLERANCES = [10**-k for k in (1, 1.5, 2, 2.5, 3, 4, 5)]


class OptimalNetwork(nn.Module):
    """Stands in for the network of a head, and counts its calls."""

    def __init__(self, output: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.output = output
        self.calls = 0
        # A head computes in the dtype of its weights, of which there are no others here.
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))

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
        return flow.with_sampling(solver=solver).sample_from(cond, start)

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
