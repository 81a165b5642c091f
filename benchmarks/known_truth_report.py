"""What `known_truth.py` found, told: rank correlations, tables and a plot."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import pearsonr, spearmanr

__all__ = ["SCORES", "correlate", "correlations", "draw_plot", "show"]

# What models are ranked by, and whether higher or lower is better, as are all distances.
SCORES = {"share_of_optimum": 1, "expected_share": 1, "brier_regret": -1}
TRUTH = ("truth", "perfect head")


def is_energy_trained(row: Mapping[str, Any]) -> bool:
    """Whether the model has an energy head, of whatever setting."""
    return row["model"].startswith("EnergyHead")


def correlations(worlds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How models rank by BrierLM and by the truth; 1 is the same order."""
    models = [(w, row) for w in worlds for row in w["rows"] if row["model"] not in TRUTH]
    last = max(row["step"] for _, row in models)
    groups = {f"K = {w['chunk']}": [row for v, row in models if v is w] for w in worlds}
    groups["all"] = [row for _, row in models]
    found: dict[str, Any] = {}
    for name, rows in groups.items():
        energy = [row for row in rows if is_energy_trained(row)]
        ends = [row for row in rows if row["step"] == last]
        found[name] = {"rows": len(rows), "ends": len(ends), "energy": len(energy)}
        for score in SCORES:
            found[name][score] = {
                "total variation": correlate(rows, score, "total_variation"),
                "KL": correlate(rows, score, "kl"),
                "total variation, ends": correlate(ends, score, "total_variation"),
                "cross entropy, energy": correlate(energy, score, "excess_cross_entropy"),
                "the same, Pearson": correlate(energy, score, "excess_cross_entropy", pearsonr),
            }
    return found


def correlate(
    rows: Sequence[Mapping[str, float]],
    first: str,
    second: str,
    coefficient: Callable[..., Any] = spearmanr,
) -> float | None:
    """Correlation of two numbers, each turned so that higher is better; None if undefined."""
    pair = [[SCORES.get(name, -1) * row[name] for row in rows] for name in (first, second)]
    if len(rows) < 3 or min(len(set(values)) for values in pair) < 2:
        return None
    return float(coefficient(*pair).statistic)


def show(results: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    low, high = results["entropy_rate"]
    print(f"Entropy rate of the language: {low:.4f} to {high:.4f} nats per token")
    for world in results["worlds"]:
        print(
            f"\nK = {world['chunk']}: entropy {world['entropy']:.3f} nats per token, best BrierLM "
            f"{world['brier_lm_optimum']:.2f}, autoencoder restores "
            f"{100 * world['autoencoder_accuracy']:.2f} % of the tokens\n"
            f"    {'model':26} {'step':>5} {'TV':>7} {'KL':>7} {'excess':>7} {'regret':>7} "
            f"{'BrierLM':>8} {'error':>6} {'of best':>8} {'expected':>8}"
        )
        for row in world["rows"]:
            line = (
                f"    {row['model']:26} {row.get('step', ''):>5} {row['total_variation']:7.4f} "
                f"{row['kl']:7.4f} {row['excess_cross_entropy']:7.4f} {row['brier_regret']:7.3f}"
            )
            if "brier_lm" in row:
                line += (
                    f" {row['brier_lm']:8.2f} {row['brier_lm_standard_error']:6.2f} "
                    f"{row['share_of_optimum']:8.3f} {row['expected_share']:8.3f}"
                )
            print(line)
    print(
        "\nSpearman correlations with less distance to the truth: of all models and checkpoints;\n"
        "of trained models (ends); and with less cross entropy, of energy-trained ones (energy)"
    )
    for name, values in results["correlations"].items():
        print(
            f"    {name}: {values['rows']} rows, {values['ends']} ends, {values['energy']} energy"
        )
        for score in SCORES:
            texts = (
                f"{what} {'undefined' if value is None else f'{value:.3f}'}"
                for what, value in values[score].items()
            )
            print(f"        {score:17} " + "; ".join(texts))


def draw_plot(worlds: Sequence[Mapping[str, Any]], path: Path) -> None:
    """BrierLM against total variation, and against cross entropy if energy-trained, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(row["model"] for world in worlds for row in world["rows"]))
    names = [name for name in names if name not in TRUTH]
    for world, marker in zip(worlds, itertools.cycle("o^sDv"), strict=False):
        for number, name in enumerate(names):
            rows = [row for row in world["rows"] if row["model"] == name]
            if not rows:
                continue
            scores = [row["expected_share"] for row in rows]
            style = {
                "color": f"C{number}",
                "marker": marker,
                "label": f"{name}, K = {world['chunk']}",
            }
            left.plot([row["total_variation"] for row in rows], scores, linewidth=0.5, **style)
            if is_energy_trained(rows[0]):
                excess = [row["excess_cross_entropy"] for row in rows]
                right.plot(excess, scores, linewidth=0.5, **style)
    left.set(title="All models and checkpoints", xlabel="total variation to the truth")
    right.set(
        title="Energy-trained models and checkpoints",
        xlabel="excess cross entropy, nats per token",
    )
    for axes in (left, right):
        axes.set(ylabel="expected BrierLM, share of the best")
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize="x-small")
    figure.savefig(path, dpi=150)
