"""What sampling at a temperature costs, and how near its law is to the tempered one.

- One chunk for each row from its state, against the published procedure written plainly
  (`published_generation.py`): seconds, and peak bytes. The batch algorithm has the same law; the
  exact algorithm has that of N without end, and is shown beside it. How much is left out depends
  on how often candidates agree: three levels of it (`agreement.py`).
- Tokens per second of `generate` and of the published loop.
- Selection alone, among given candidates.
- Distance of the batch algorithm's law to the tempered one over N, enumerated
  (`temperature_law.py`).

On the CPU the clock counts processor seconds of one thread: other work on the machine hardly
enters.

    python benchmarks/generation.py --json generation.json --plot generation.png
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from chunk_cost import compare_chunks
from generation_cost import compare_generation, compare_selection
from measuring import choose_clock, print_results
from temperature_law import batch_laws


def goal(times: Mapping[str, float], wanted: float | None) -> str:
    """A ratio as text."""
    text = f"{times['median']:6.2f} ({times['least']:.2f} to {times['most']:.2f}"
    return text + (")" if wanted is None else f"; goal {wanted:g})")


def show(results: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    print("A chunk for each row: milliseconds, mean draws, times faster than published")
    for row in results["chunks"]:
        endings = " ".join(f"{share:.3f}" for share in row["equal_endings"])
        print(
            f"    vocabulary {row['vocabulary']}, {row['rows']} rows, {row['agreement']} agreement"
            f": collision probability {row['collision_probability']:.4f}, of endings "
            f"{endings}\n        published {row['milliseconds']['published']:10.1f} ms"
        )
        for name, times in row["times_faster"].items():
            wanted = row["times_faster_wanted"] if name == "batch" else None
            print(
                f"        {name:9} {row['milliseconds'][name]:10.1f} ms "
                f"{row['draws'][name]:6.1f} {goal(times, wanted)}"
            )
        wanted = row["times_smaller_wanted"]
        print(
            f"        memory {row['megabytes']['batch']:.1f} | {row['megabytes']['published']:.1f}"
            f" MB: {row['times_smaller']:.1f} times smaller"
            + ("" if wanted is None else f" (goal {wanted:g})")
            + f"; laws differ by {row['law_difference']:.0e}"
        )
    print("\nGeneration: tokens per second, times faster than published")
    for row in results["generation"]:
        print(
            f"    batch {row['batch']}, temperature {row['temperature']}: published "
            f"{row['tokens_per_second']['published']:.1f} /s"
        )
        for name, times in row["times_faster"].items():
            wanted = row["times_faster_wanted"] if name == "batch" else None
            print(
                f"        {name:9} {row['tokens_per_second'][name]:8.1f} /s "
                f"{row['draws'][name]:6.1f} draws {goal(times, wanted)}"
            )
    row = results["selection"]
    print(
        f"\nSelection, {row['rows']} rows: {row['milliseconds']['calmkit']:.2f} | "
        f"{row['milliseconds']['published']:.2f} ms, times faster "
        + goal(row["times_faster"], row["times_faster_wanted"])
    )
    print("\nTotal variation between batch algorithm and tempered law at N candidates")
    for row in results["law"]:
        pairs = zip(row["candidates"], row["total_variation"], strict=True)
        print(
            f"    T = {row['temperature']:.3f} (slope {row['slope']:.2f}) "
            + " ".join(f"{n}: {distance:.5f}" for n, distance in pairs)
        )


def draw_plot(laws: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Total variation against N, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row in laws:
        label = f"T = {row['temperature']:.3g} (slope {row['slope']:.2f})"
        axes.loglog(row["candidates"], row["total_variation"], "o-", label=label, markersize=4)
    shares = ", ".join(f"{share:g}" for share in laws[0]["law"])
    axes.set(
        title=f"Batch algorithm on a law of {shares}",
        xlabel="candidates N",
        ylabel="total variation to the tempered law",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, then print tables and a JSON object."""
    parser = argparse.ArgumentParser(description="Cost and law of sampling at a temperature.")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU")
    parser.add_argument("--hidden", type=int, default=256, help="of backbone and condition")
    parser.add_argument("--depth", type=int, default=4, help="blocks of the backbone")
    parser.add_argument("--heads", type=int, default=4, help="of its attention")
    parser.add_argument("--head-width", type=int, default=256)
    parser.add_argument("--head-depth", type=int, default=4, help="blocks of the head")
    parser.add_argument("--latent", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=4, help="K")
    parser.add_argument("--width", type=int, default=512, help="of the autoencoder")
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--large-vocab", type=int, default=131072, help="with one row")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--candidates", type=int, default=200, help="N")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="of generation")
    parser.add_argument("--prompt-chunks", type=int, default=8)
    parser.add_argument("--new-chunks", type=int, default=8)
    parser.add_argument("--selection-rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--numbers", type=int, nargs="+", default=[4, 8, 16, 32, 64, 128, 256, 512],
        help="of candidates, in the curve of the law",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--plot", type=Path, help="also draw the curve in this PNG")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.clock, unit = choose_clock(args.device)
    results: dict[str, Any] = {
        "setting": {name: value for name, value in vars(args).items() if isinstance(value, int)},
        "clock": unit,
        "chunks": compare_chunks(args, args.device),
        "generation": compare_generation(args, args.device),
        "selection": compare_selection(args, args.device),
        "law": batch_laws(args.numbers),
    }
    show(results)
    print_results(results, args.device, args.json)
    if args.plot is not None:
        draw_plot(results["law"], args.plot)


if __name__ == "__main__":
    main()
