"""A comparison as a table on the screen and as files: JSON, CSV, PNG and the sampled texts.

The table fits 100 columns. BrierLM is a geometric mean and has no value where one of its four
scores is not positive, as happens on small runs: it is then shown as 0, with a note that names
the score. The unigram row, token frequencies without any context, is what a head must beat.
"""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.metrics import Estimate

from .results import ComparisonResult, HeadResult

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["notes", "to_csv", "to_samples", "to_table", "write_report"]


def to_table(result: ComparisonResult) -> "Table":
    """The result as a rich table of at most 100 columns."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{result.corpus_name}: held-out text, seed {result.seed}",
        caption="\n".join(notes(result)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_lines=True,
    )
    table.add_column("head", no_wrap=False, overflow="fold", min_width=8)
    for heading in (
        "BrierLM\n%", "Brier-1\n% ± se", "Brier-2\n% ± se", "Brier-3\n% ± se", "Brier-4\n% ± se",
        "energy\nscore ↓", "para-\nmeters", "evals/\nsample", "train\ns", "µs/\ntoken",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    for head in result.heads:
        table.add_row(
            head.name,
            _plain(head.brier_lm, 2),
            *(_two_lines(score) for score in head.brier),
            _two_lines(head.energy_score),
            _thousands(head.parameters),
            str(head.evaluations_per_sample or "varies"),
            _plain(head.training_seconds, 0),
            _plain(head.microseconds_per_token, 0),
        )
    table.add_row("unigram", "", *(_two_lines(score) for score in result.unigram_brier))
    return table


def notes(result: ComparisonResult) -> list[str]:
    """What a reader must know to read the table, a line each."""
    lines = []
    for head in result.heads:
        low = [f"-{n}" for n, score in enumerate(head.brier, 1) if not score.value > 0]
        if low:
            which = f"{', '.join(low[:-1])} and {low[-1]} are" if len(low) > 1 else f"{low[0]} is"
            lines.append(f"{head.name}: BrierLM is 0 because Brier{which} not positive.")
    untrained = ", ".join(
        f"{head.name} {_plain(head.untrained_brier[0].value, 2)}" for head in result.heads
    )
    lines += [
        "Brier-n and BrierLM: higher is better. Energy score: lower is better.",
        "unigram: token frequencies of the training text, without context.",
        f"Brier-1 before training, on a quarter of the rows: {untrained}.",
        "parameters: the head's own; backbone and input encoder have "
        f"{_thousands(result.shared_parameters)} besides.",
        "µs/token: 8 texts at once, at temperature 1.",
        f"Autoencoder: {100 * result.autoencoder_accuracy:.2f} % of held-out tokens restored.",
        f"Protocol: {result.protocol}",
        f"Text: {result.corpus_name}, SHA-256 {result.corpus_digest[:12]}. {result.hardware}.",
    ]
    return lines


def to_csv(result: ComparisonResult) -> str:
    """One line for each head and one for the unigram baseline, at full precision."""
    rows = [_csv_row(head) for head in result.heads]
    rows.append({"head": "unigram", **_csv_brier(result.unigram_brier)})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_samples(result: ComparisonResult) -> str:
    """The text that each head wrote, under its name."""
    return "\n".join(f"=== {head.name} ===\n{head.sample_text}\n" for head in result.heads)


def write_report(result: ComparisonResult, directory: Path) -> list[Path]:
    """Write `results.json`, `results.csv`, `results.png` and `samples.txt`.

    Args:
        result: What to report.
        directory: Made if missing; files of the same names are replaced.

    Returns:
        The files.
    """
    from .plot import write_plot

    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        "results.json": result.to_json() + "\n",
        "results.csv": to_csv(result),
        "samples.txt": to_samples(result),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
    write_plot(result, directory / "results.png")
    return [*(directory / name for name in texts), directory / "results.png"]


def _csv_brier(scores: tuple[Estimate, ...]) -> dict[str, float]:
    row = {}
    for n, score in enumerate(scores, 1):
        row[f"brier_{n}"] = score.value
        row[f"brier_{n}_se"] = score.standard_error
    return row


def _csv_row(head: HeadResult) -> dict[str, str | float]:
    return {
        "head": head.name,
        "brier_lm": head.brier_lm,
        **_csv_brier(head.brier),
        "energy_score": head.energy_score.value,
        "energy_score_se": head.energy_score.standard_error,
        "parameters": head.parameters,
        "evaluations_per_sample": head.evaluations_per_sample or "varies",
        "training_seconds": head.training_seconds,
        "microseconds_per_token": head.microseconds_per_token,
        "untrained_brier_1": head.untrained_brier[0].value,
        "untrained_brier_1_se": head.untrained_brier[0].standard_error,
    }


def _two_lines(estimate: Estimate) -> str:
    """The value above its error, with as many digits as the error has two of."""
    if not math.isfinite(estimate.value):
        return "-"
    if not estimate.standard_error > 0:
        return f"{estimate.value:.4f}"
    digits = min(4, max(0, 1 - math.floor(math.log10(estimate.standard_error))))
    return f"{estimate.value:.{digits}f}\n±{estimate.standard_error:.{digits}f}"


def _plain(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _thousands(count: int) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)
