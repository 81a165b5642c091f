r"""What the energy score costs: closed form, sampled targets, the published formula, scoringrules.

The published loss (arXiv 2510.27688), halved here to the scale of `EnergyScore`, compares N
samples x of a head with M = 100 draws z of the target at every position:

    2/(N M) sum_{n, m} ||x_n - z_m|| - 1/(N (N-1)) sum_{n != k} ||x_n - x_k||.

Three ways to compute it, forward and backward with respect to the samples, in float32:

- literal: the formula as it stands, with a tensor of (N, M, positions, latent) differences;
- sampled: `SampledTarget(EnergyScore(), M)`, the same estimate without that tensor;
- closed form: `EnergyScore()`, the expectation over z, which needs no draws.

Drawing the targets is part of the cost. Reported are time and peak memory (beyond the inputs, the
gradient included) against positions, with the exponent of the cost; the variance of the gradient;
and the cost of `energy_score` and `crps` next to the package scoringrules, same numbers.

    python benchmarks/scoring.py --json scoring.json --plot scoring.png
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import interleaved_seconds, log_log_slope, peak_bytes, print_results, times_faster
from torch import Generator, Tensor

from calmkit.distributions import DiagonalGaussian
from calmkit.scoring import EnergyScore, SampledTarget, ScoringRule, energy_score

Score = Callable[[Tensor, DiagonalGaussian, Generator], Tensor]
# Scales of latents as a chunk autoencoder makes them: unit spread, posterior std of 0.3.
POSTERIOR_STD = 0.3
# How many times faster, and how many times smaller, than the literal formula with M = 100.
GOALS = {"closed form": (15, 8), "sampled": (4, 4)}


def literal_score(
    samples: Tensor, target: DiagonalGaussian, generator: Generator, num_targets: int = 100
) -> Tensor:
    """The formula of the module with every difference held, for each position."""
    count, mean = len(samples), target.mean
    shape = (num_targets, *mean.shape)
    noise = torch.randn(shape, generator=generator, dtype=mean.dtype, device=mean.device)
    drawn = target.mean + target.std * noise
    error = torch.linalg.vector_norm(samples[:, None] - drawn, dim=-1)
    spread = torch.linalg.vector_norm(samples[:, None] - samples, dim=-1)
    loss = 2 * error.mean(dim=(0, 1)) - spread.sum(dim=(0, 1)) / (count * (count - 1))
    return loss / 2


def draw_problem(
    count: int, positions: int, latent: int, generator: Generator
) -> tuple[Tensor, DiagonalGaussian]:
    """Samples and targets of a calibrated head: both from N(0, 1)."""
    place: dict[str, Any] = {
        "generator": generator,
        "device": generator.device,
        "dtype": torch.float32,
    }
    mean = (1 - POSTERIOR_STD**2) ** 0.5 * torch.randn(positions, latent, **place)
    target = DiagonalGaussian(mean, torch.full_like(mean, POSTERIOR_STD))
    return torch.randn(count, positions, latent, **place), target


def training_step(score: Callable[[Tensor], Tensor], samples: Tensor) -> Callable[[], None]:
    """Work to measure: the score of samples, and its gradient."""

    def work() -> None:
        leaf = samples.detach().requires_grad_()
        score(leaf).sum().backward()

    return work


def compare_methods(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time and memory of the three methods at each number of positions."""
    methods: dict[str, Score] = {
        "literal": partial(literal_score, num_targets=args.targets),
        "closed form": EnergyScore().score,
        "sampled": SampledTarget(EnergyScore(), args.targets).score,
    }
    generator = Generator(device).manual_seed(0)
    works, rows = {}, []
    for positions in sorted({*args.positions, args.goal_positions}):
        samples, target = draw_problem(args.samples, positions, args.latent, generator)
        scores = {name: score(samples, target, generator) for name, score in methods.items()}
        noise = scores["literal"] - scores["closed form"]
        rows.append(
            {
                "positions": positions,
                "mean_score": {name: float(found.mean()) for name, found in scores.items()},
                # Of the mean scores of literal and sampled, from the drawn targets.
                "standard_error": float(noise.std() / positions**0.5),
            }
        )
        for name, score in methods.items():
            works[name, positions] = training_step(
                lambda x, score=score, target=target: score(x, target, generator), samples
            )
    seconds = interleaved_seconds(works, args.rounds, device)
    for row in rows:
        own = {name: seconds[name, row["positions"]] for name in methods}
        size = {name: peak_bytes(works[name, row["positions"]], device) for name in methods}
        row["milliseconds"] = {name: 1e3 * statistics.median(own[name]) for name in methods}
        row["megabytes"] = {name: size[name] / 1e6 for name in methods}
        row["times_faster"] = {name: times_faster(own[name], own["literal"]) for name in GOALS}
        row["times_smaller"] = {name: size["literal"] / size[name] for name in GOALS}
    positions = [row["positions"] for row in rows]
    slopes = {
        name: {
            unit: log_log_slope(positions, [row[unit][name] for row in rows])
            for unit in ("milliseconds", "megabytes")
        }
        for name in methods
    }
    at = rows[positions.index(args.goal_positions)]
    goals = {
        name: {
            "positions": args.goal_positions,
            "times_faster": at["times_faster"][name],
            "times_faster_wanted": faster,
            "times_smaller": at["times_smaller"][name],
            "times_smaller_wanted": smaller,
        }
        for name, (faster, smaller) in GOALS.items()
    }
    return {"rows": rows, "slopes": slopes, "goals": goals}


def gradient_variances(args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """How much the gradient varies if more and more of a step is drawn anew.

    The head is x = loc + spread e with e ~ N(0, 1), its gradient the one in loc and spread at a
    position, its variance the trace of the covariance over repetitions, averaged over positions.
    The head is calibrated: outcomes, mean plus posterior noise, have the same law as its samples.
    With the posterior's std as spread the next chunk is certain; with 1 it is open.
    """
    rules: dict[str, ScoringRule] = {"closed form": EnergyScore()}
    rules |= {f"M = {m}": SampledTarget(EnergyScore(), m) for m in args.variance_targets}
    repeats, positions, latent = args.repeats, 16, args.latent
    generator = Generator(device).manual_seed(1)
    place: dict[str, Any] = {"generator": generator, "device": device, "dtype": torch.float32}

    def variance(rule: ScoringRule, spread: float, noise: Tensor, outcome: Tensor) -> float:
        zeros = torch.zeros(repeats, positions, latent, dtype=torch.float32, device=device)
        loc, scale = zeros.requires_grad_(), (zeros + spread).detach().requires_grad_()
        mean = max(spread**2 - POSTERIOR_STD**2, 0.0) ** 0.5 * outcome.expand_as(zeros)
        target = DiagonalGaussian(mean, torch.full_like(mean, POSTERIOR_STD))
        total = rule.score(loc + scale * noise, target, generator).sum()
        gradient = torch.cat(torch.autograd.grad(total, (loc, scale)), dim=-1)
        return float(gradient.var(dim=0).sum(dim=-1).mean())

    rows = []
    for spread in (POSTERIOR_STD, 1.0):
        shape = (args.samples, repeats, positions, latent)
        noise, outcome = torch.randn(shape, **place), torch.randn(shape[1:], **place)
        for name, rule in rules.items():
            rows.append(
                {
                    "spread": spread,
                    "rule": name,
                    "targets_redrawn": variance(rule, spread, noise[:, :1], outcome[:1]),
                    "samples_redrawn_too": variance(rule, spread, noise, outcome[:1]),
                    "outcomes_redrawn_too": variance(rule, spread, noise, outcome),
                }
            )
    return rows


def compare_with_scoringrules(
    args: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """Scores of a plain observation, each package in the layout it computes in."""
    import scoringrules

    from calmkit.scoring.crps import crps

    def theirs(function: Callable[..., Tensor], estimator: str) -> Callable[..., Tensor]:
        return lambda x, y: function(y, x, backend="torch", estimator=estimator)

    # Name, our function, theirs, their axis of samples.
    cases = [
        ("energy score", energy_score, theirs(scoringrules.es_ensemble, "fair"), -2),
        ("CRPS, pairs", crps, theirs(scoringrules.crps_ensemble, "fair"), -1),
        ("CRPS, sorted", crps, theirs(scoringrules.crps_ensemble, "pwm"), -1),
    ]
    generator = Generator(device).manual_seed(2)
    rows = []
    for (name, our_score, their_score, axis), count in itertools.product(
        cases, (args.samples, 8 * args.samples)
    ):
        positions = max(1, args.goal_positions * args.samples // count)
        samples, target = draw_problem(count, positions, args.latent, generator)
        observation = target.sample(1, generator)[0]
        moved = samples.movedim(0, axis).contiguous()
        works = {
            "calmkit": training_step(lambda x, f=our_score, y=observation: f(x, y), samples),
            "scoringrules": training_step(lambda x, f=their_score, y=observation: f(x, y), moved),
        }
        seconds = interleaved_seconds(works, args.rounds, device)
        size = {package: peak_bytes(work, device) for package, work in works.items()}
        exact = their_score(moved.double(), observation.double())
        found = {
            "calmkit": our_score(samples, observation),
            "scoringrules": their_score(moved, observation),
        }
        rows.append(
            {
                "score": name,
                "samples": count,
                "positions": positions,
                "milliseconds": {k: 1e3 * statistics.median(v) for k, v in seconds.items()},
                "megabytes": {k: v / 1e6 for k, v in size.items()},
                "times_faster": times_faster(seconds["calmkit"], seconds["scoringrules"]),
                "times_smaller": size["scoringrules"] / size["calmkit"],
                "difference": float((found["calmkit"] - found["scoringrules"]).abs().max()),
                # Of float32 from the same formula in float64.
                "error": {k: float((v - exact).abs().max()) for k, v in found.items()},
            }
        )
    return rows


def show(results: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    methods = results["methods"]
    print("Forward and backward, peak memory; in brackets: how many times less than literal")
    for row in methods["rows"]:
        print(f"{row['positions']:6d} positions")
        for name, score in row["mean_score"].items():
            time, size = row["milliseconds"][name], row["megabytes"][name]
            less = row["times_faster"].get(name, {"median": 1.0})["median"]
            smaller = row["times_smaller"].get(name, 1.0)
            print(
                f"    {name:12s}{time:10.1f} ms ({less:4.1f}) {size:9.1f} MB ({smaller:4.1f})"
                f"    mean score {score:.4f}"
            )
        print(
            f"    standard error of a mean score with drawn targets: {row['standard_error']:.4f}"
        )
    print("\nCost as a power of positions")
    for name, slope in methods["slopes"].items():
        print(f"    {name:12s}time {slope['milliseconds']:.2f}, memory {slope['megabytes']:.2f}")
    print("\nAgainst literal: times faster (in single rounds), times smaller")
    for name, goal in methods["goals"].items():
        faster, smaller = goal["times_faster"], goal["times_smaller"]
        print(
            f"    {name:12s}{faster['median']:.1f} ({faster['least']:.1f} to "
            f"{faster['most']:.1f}; goal {goal['times_faster_wanted']}), {smaller:.1f} (goal "
            f"{goal['times_smaller_wanted']}) at {goal['positions']} positions"
        )
    print("\nVariance of the gradient; redrawn are: targets | samples too | outcomes too")
    for row in results["gradient_variance"]:
        print(
            f"    spread {row['spread']:.1f}  {row['rule']:12s}{row['targets_redrawn']:9.5f} |"
            f"{row['samples_redrawn_too']:9.5f} |{row['outcomes_redrawn_too']:9.5f}"
        )
    print("\ncalmkit | scoringrules (times less); largest difference of scores, error of each")
    for row in results["scoringrules"]:
        (t, their_t), (m, their_m), (e, their_e) = (
            row[key].values() for key in ("milliseconds", "megabytes", "error")
        )
        print(
            f"    {row['score']:13s}N = {row['samples']:2d}, {row['positions']:4d} positions:"
            f"{t:8.1f} | {their_t:6.1f} ms ({row['times_faster']['median']:4.1f})"
            f"{m:8.1f} | {their_m:6.1f} MB ({row['times_smaller']:4.1f})"
            f"    {row['difference']:.0e}, {e:.0e} | {their_e:.0e}"
        )


def draw_plot(methods: Mapping[str, Any], title: str, path: Path) -> None:
    """Time and memory against positions, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    positions = [row["positions"] for row in methods["rows"]]
    labels = {"milliseconds": "forward and backward (ms)", "megabytes": "peak memory (MB)"}
    for axes, (unit, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for name, slope in methods["slopes"].items():
            cost = [row[unit][name] for row in methods["rows"]]
            axes.loglog(positions, cost, "o-", label=f"{name}: exponent {slope[unit]:.2f}")
        axes.set(xlabel="positions", ylabel=label)
        axes.set_xticks(positions)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Cost of the energy score.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--samples", type=int, default=8, help="N, samples of the head")
    parser.add_argument("--targets", type=int, default=100, help="M, draws of the target")
    parser.add_argument("--latent", type=int, default=128, help="size of a latent")
    parser.add_argument(
        "--positions", type=int, nargs="+", default=[128, 256, 512, 1024, 2048, 4096]
    )
    parser.add_argument(
        "--goal-positions", type=int, default=2048, help="where the goals and scoringrules are"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each method")
    parser.add_argument(
        "--variance-targets", type=int, nargs="+", default=[1, 16, 100], help="M of the variances"
    )
    parser.add_argument("--repeats", type=int, default=128, help="redraws of the variances")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw time and memory in this PNG")
    args = parser.parse_args(arguments)
    results: dict[str, Any] = {
        "setting": {
            "samples": args.samples,
            "targets": args.targets,
            "latent": args.latent,
            "posterior_std": POSTERIOR_STD,
            "rounds": args.rounds,
        },
        "methods": compare_methods(args, args.device),
        "gradient_variance": gradient_variances(args, args.device),
        "scoringrules": compare_with_scoringrules(args, args.device),
    }
    show(results)
    print_results(results, args.device, args.json)
    if args.plot is not None:
        title = f"Energy score, N = {args.samples}, M = {args.targets}, latent {args.latent}"
        draw_plot(results["methods"], title, args.plot)


if __name__ == "__main__":
    main()
