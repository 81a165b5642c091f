"""What heads cost, and what the evaluations of a solver buy.

Three tables, each of a file of its own: the energy head against the published one
(`energy_head_cost.py`), samples per second of every head (`head_rates.py`), quality against
evaluations of solvers and samplers (`solver_quality.py`).

On the CPU the clock counts processor seconds of one thread: other work on the machine hardly
enters.

    python benchmarks/heads_micro.py --json heads_micro.json --plot heads_micro.png
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from energy_head_cost import compare_energy_heads
from head_rates import compare_heads
from measuring import choose_clock, print_results
from solver_quality import EVALUATIONS, TOLERANCES, compare_solvers


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
    args.clock, unit = choose_clock(args.device)
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "clock": unit,
        "energy": compare_energy_heads(args, args.device),
        "heads": compare_heads(args, args.device),
        "solvers": compare_solvers(args, args.device),
    }
    add_speed(results)
    show(results)
    print_results(results, args.device, args.json)
    if args.plot is not None:
        draw_plot(results["solvers"], args.plot)


if __name__ == "__main__":
    main()
