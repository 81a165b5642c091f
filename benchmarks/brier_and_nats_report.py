r"""What `brier_and_nats.py` found: errors, correlations, models of equal nats, tables and a plot.

All errors are standard deviations over resamples of the documents, the same for every model, so
that what models share cancels in differences and in correlations.

*At equal nats.* The scores of the softmax's checkpoints, linear between neighbours, give the score
of a softmax at any number of nats in their range. The excess of another model is its score minus
that of a softmax of its nats. Bounds are above the true nats, so that the true excess is lower.

*Discordant pairs.* Two models of which one has fewer nats and the other the better score, both by
more than two errors.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from calmkit.metrics import DocumentScores, combine_brier, errors_of, resampled_ratios

__all__ = ["correlation", "draw_plot", "report", "show"]

SCORES = ("brier_1", "brier_2", "brier_lm")
SOFTMAX = "softmax"
PER_CENT = ("brier", "drawn", "hit", "probability")

Row = Mapping[str, Any]
Table = dict[str, np.ndarray]


def report(rows: Sequence[Row], *, resamples: int, seed: int) -> dict[str, Any]:
    """All numbers with their errors.

    Args:
        rows: Kind, chunk, step and scores by document of each model.
        resamples: Of the documents.
        seed: Of the resampling.
    """
    tables = [table_of(DocumentScores.from_dict(row["scores"]), resamples, seed) for row in rows]
    names = [(row["kind"], row["chunk"], row["step"]) for row in rows]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    groups = {kind: [n for n, row in enumerate(rows) if row["kind"] == kind] for kind in kinds}
    ends = [numbers[-1] for numbers in groups.values()]
    return {
        "models": [
            dict(zip(("kind", "chunk", "step"), name, strict=True))
            | {key: _estimate(values) for key, values in table.items()}
            for name, table in zip(names, tables, strict=True)
        ],
        "correlations": {
            name: correlations([tables[n] for n in chosen])
            for name, chosen in ({**groups, "all": range(len(rows)), "ends": ends}).items()
            if len(chosen) > 2
        },
        "at_equal_nats": at_equal_nats(names, tables),
        "from_step_to_step": [
            {"kind": kind, "from": names[a][2], "to": names[b][2]}
            | {key: _estimate(tables[b][key] - tables[a][key]) for key in ("nats", *SCORES)}
            for kind, numbers in groups.items()
            for a, b in itertools.pairwise(numbers)
        ],
        "discordant": {score: discordant(names, tables, score) for score in SCORES},
    }


def table_of(scores: DocumentScores, resamples: int, seed: int) -> Table:
    """Each number, and the same in every resample, (1 + resamples,); scores times 100."""
    ratios = torch.cat(
        [
            (scores.sums.sum(dim=0) / scores.counts.sum(dim=0))[None],
            resampled_ratios(scores.sums, scores.counts, resamples=resamples, seed=seed),
        ]
    )
    factors = [100.0 if name.startswith(PER_CENT) else 1.0 for name in scores.names]
    found = {
        name: (factor * column).numpy()
        for name, factor, column in zip(scores.names, factors, ratios.T, strict=True)
    }
    for prefix in ("", "drawn_"):
        orders = [f"{prefix}brier_{n}" for n in range(1, 5)]
        if orders[0] in found:
            brier = torch.stack([torch.from_numpy(found[name]) for name in orders], dim=-1)
            found[f"{prefix}brier_lm"] = combine_brier(brier / 100).numpy()
    return found


def correlations(tables: Sequence[Table]) -> dict[str, Any]:
    """Of each score with fewer nats; 1 is full agreement, None is undefined."""
    nats = np.stack([table["nats"] for table in tables], axis=-1)
    found = {}
    for score in SCORES:
        values = np.stack([table[score] for table in tables], axis=-1)
        found[score] = {
            "Pearson": _estimate(correlation(values, -nats)),
            "Spearman": _estimate(correlation(_ranks(values), _ranks(-nats))),
        }
    return {"models": len(tables), **found}


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's, along the last axis; NaN where one does not vary."""
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (first, second))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def at_equal_nats(
    names: Sequence[tuple[str, int, int]], tables: Sequence[Table]
) -> list[dict[str, Any]]:
    """The excess of each model over a softmax of its nats, if the softmax's range has them."""
    softmax = [table for name, table in zip(names, tables, strict=True) if name[0] == SOFTMAX]
    if len(softmax) < 2:
        return []
    nats = np.stack([table["nats"] for table in softmax], axis=-1)
    low, high = nats[0].min(), nats[0].max()
    found = []
    for (kind, chunk, step), table in zip(names, tables, strict=True):
        if kind == SOFTMAX or not low <= table["nats"][0] <= high:
            continue
        row = {"kind": kind, "chunk": chunk, "step": step, "nats": _estimate(table["nats"])}
        for score in SCORES:
            curve = np.stack([one[score] for one in softmax], axis=-1)
            row[score] = _estimate(table[score] - interpolated(table["nats"], nats, curve))
        found.append(row)
    return found


def interpolated(at: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Piecewise linear through the points (x, y) of each resample, constant beyond their ends."""
    order = x.argsort(axis=-1)
    x, y = (np.take_along_axis(one, order, axis=-1) for one in (x, y))
    return np.array([np.interp(*one) for one in zip(at, x, y, strict=True)])


def discordant(
    names: Sequence[tuple[str, int, int]], tables: Sequence[Table], score: str
) -> dict[str, Any]:
    """Pairs of models that nats and the score order, both by two errors, and how many disagree."""
    ordered, opposite = 0, []
    for (one, a), (other, b) in itertools.combinations(zip(names, tables, strict=True), 2):
        fewer, better = (_in_errors(x) for x in (b["nats"] - a["nats"], a[score] - b[score]))
        if min(abs(fewer), abs(better)) > 2:
            ordered += 1
            if fewer * better < 0:
                opposite.append([_text(one), _text(other)])
    return {"ordered": ordered, "discordant": len(opposite), "pairs": opposite}


def _in_errors(values: np.ndarray) -> float:
    error = _error(values)
    return float(values[0] / error) if error else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    return rankdata(values, axis=-1)


def _error(values: np.ndarray) -> float | None:
    error = float(errors_of(torch.from_numpy(values[1:, None])))
    return error if np.isfinite(error) else None


def _estimate(values: np.ndarray) -> dict[str, float | None]:
    value = float(values[0])
    if not np.isfinite(value):
        return {"value": None, "standard_error": None}
    return {"value": value, "standard_error": _error(values)}


def _text(name: tuple[str, int, int]) -> str:
    return f"{name[0]}, step {name[2]}"


def show(results: Mapping[str, Any]) -> None:
    """Print the results as tables."""
    columns = ("nats", "nats_few", "brier_1", "drawn_brier_1", "brier_2", "brier_4", "brier_lm")
    print(f"{'model':22} {'step':>6} " + " ".join(f"{name:>15}" for name in columns))
    for row in results["models"]:
        cells = (_cell(row.get(name)) for name in columns)
        print(f"{row['kind']:22} {row['step']:6d} " + " ".join(f"{cell:>15}" for cell in cells))
    print("\nCorrelation with fewer nats: Pearson, Spearman")
    for name, row in results["correlations"].items():
        cells = (
            f"{score} {_cell(row[score]['Pearson'])}, {_cell(row[score]['Spearman'])}"
            for score in SCORES
        )
        print(f"    {name} ({row['models']} models): " + "; ".join(cells))
    print("\nScore minus that of a softmax of equal nats")
    for row in results["at_equal_nats"]:
        cells = "; ".join(f"{score} {_cell(row[score])}" for score in SCORES)
        print(f"    {row['kind']}, step {row['step']}, {_cell(row['nats'])} nats: {cells}")
    print("\nFrom checkpoint to checkpoint")
    for row in results["from_step_to_step"]:
        cells = "; ".join(f"{key} {_cell(row[key])}" for key in ("nats", *SCORES))
        print(f"    {row['kind']}, {row['from']} to {row['to']}: {cells}")
    for score, found in results["discordant"].items():
        print(f"{score}: {found['discordant']} of {found['ordered']} ordered pairs disagree")
        for one, other in found["pairs"]:
            print(f"    {one}; {other}")


def _cell(estimate: Mapping[str, float | None] | None) -> str:
    if estimate is None or estimate["value"] is None:
        return "-"
    error = estimate["standard_error"]
    return f"{estimate['value']:.3f}" + ("" if error is None else f" ± {error:.3f}")


def draw_plot(models: Sequence[Row], path: Path) -> None:
    """Brier-1 and BrierLM against nats per token, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    kinds = list(dict.fromkeys(row["kind"] for row in models))
    titles = (("brier_1", "Brier-1, %"), ("brier_lm", "BrierLM"))
    for axes, (score, title) in zip(panels, titles, strict=True):
        for kind, marker in zip(kinds, itertools.cycle("o^sDvPX"), strict=False):
            rows = [row for row in models if row["kind"] == kind]
            axes.errorbar(
                [row["nats"]["value"] for row in rows],
                [row[score]["value"] for row in rows],
                xerr=[row["nats"]["standard_error"] or 0.0 for row in rows],
                yerr=[row[score]["standard_error"] or 0.0 for row in rows],
                label=kind,
                marker=marker,
                linewidth=0.8,
                elinewidth=0.5,
            )
        axes.set(xlabel="nats per token (bounds for all but the softmax)", ylabel=title)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=150)
