"""Draw what a head is worth on books: heads and a softmax of one training cost, and n-gram tables.

    python benchmarks/books_picture.py

It reads the comparisons in `COMPARED` (a head, the softmax, the tables), on 192 rows with errors,
and `books_heads_h200.json` (the last validation of other heads, on 48 rows without errors) in
`benchmarks/results`, and writes `docs/pictures/books.svg`, whose colours follow the reader's light
or dark scheme. Each of the other heads is shown with the better of its learning rates. A run that
stopped before `FINISHED` of its steps is left out, and so is a model of another cost than the
softmax. Models that draw K tokens at once are compared with tables and a softmax that do so, too.
"""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

__all__ = ["Bar", "draw", "read_bars", "told"]

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "books.svg"
FINISHED = 0.8  # share of the planned steps
SAME_COST = 0.05  # relative difference in training FLOPs
HEADS = {
    "EnergyHead": "energy head",
    "FlowHead": "flow head",
    "GaussianHead": "Gaussian head",
    "MixtureHead": "mixture head",
}
TABLES = {name: f"{name} table" for name in ("unigram", "bigram", "trigram")}
# Of each comparison, K and the rows of its summary in the picture: a row's name there and here.
COMPARED = {
    "compare-books-softmax": (1, {**TABLES, "softmax": "softmax"}),
    "compare-books-tied": (1, {"tied-mixture": "tied mixture head"}),
    "compare-books-tied-k2": (2, {
        "tied-mixture-k2": "tied mixture head", "softmax, in chunks": "softmax",
        **{f"{row} of tied-mixture-k2": name for row, name in TABLES.items()},
    }),
}  # fmt: skip

LEFT, TOP, STEP, UNIT, WIDTH = 190, 44, 30, 30, 720  # pixels; UNIT is one per cent
PAGE = Template("""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 $width $height" width="$width" \
height="$height" role="img" aria-labelledby="title">
  <title id="title">$title</title>
  <style>
    text { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
    .page { fill: #ffffff; }
    .head { fill: #54aeff; }
    .softmax { fill: #4ac26b; }
    .table { fill: #c4cad1; }
    .name, .value, .caption { fill: #1f2328; font-size: 14px; }
    .name { text-anchor: end; }
    .note { fill: #57606a; font-size: 13px; }
    .tick { text-anchor: middle; }
    .grid { stroke: #d8dee4; }
    .error { stroke: #1f2328; stroke-width: 1.6; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; }
      .head { fill: #1f6feb; }
      .softmax { fill: #238636; }
      .table { fill: #484f58; }
      .name, .value, .caption { fill: #e6edf3; }
      .note { fill: #9ea7b3; }
      .grid { stroke: #30363d; }
      .error { stroke: #e6edf3; }
    }
  </style>
  <rect class="page" width="$width" height="$height" rx="10"/>
  <text class="caption" x="16" y="26">Brier-1 on held-out books, per cent; higher is better</text>
$marks
</svg>
""")


@dataclass(frozen=True)
class Bar:
    """One model.

    Attributes:
        name: What the model is.
        chunk_size: K, the tokens that it draws at once.
        kind: `head`, `softmax` or `table`.
        score: Brier-1 in per cent.
        error: Its standard error; None if there is none.
    """

    name: str
    chunk_size: int
    kind: str
    score: float
    error: float | None = None

    @property
    def label(self) -> str:
        """The name with K."""
        return f"{self.name}, K = {self.chunk_size}"


def read_bars(results: Path) -> list[Bar]:
    """The models of one training cost and the tables, by K, the worst first.

    Args:
        results: The folder `benchmarks/results`.
    """
    flops = float(_summary(results / "compare-books-softmax")["softmax"]["training_flops"])
    heads: dict[tuple[str, int], float] = {}
    for run in json.loads((results / "books_heads_h200.json").read_text("utf-8"))["curves"]:
        step, score, _ = run["step, brier_1, loss"][-1]
        cost = run["planned_training_flops"]
        if cost is None or abs(cost / flops - 1) > SAME_COST:
            continue
        if step >= FINISHED * run["planned_steps"]:
            model = HEADS[run["head"].partition(",")[0]], run["chunk_size"]
            heads[model] = max(score, heads.get(model, score))
    bars = [Bar(*model, "head", score) for model, score in heads.items()]
    for folder, (chunk_size, names) in COMPARED.items():
        rows = _summary(results / folder)
        for variant, name in names.items():
            row, kind = rows[variant], name.rpartition(" ")[2]
            # Tables are not trained, and a softmax in chunks is one of equal cost.
            cost = float(row["training_flops"] or flops)
            if abs(cost / flops - 1) <= SAME_COST:
                score, error = float(row["brier_1"]), float(row["brier_1_se"])
                bars.append(Bar(name, chunk_size, kind, score, error))
    return sorted(bars, key=lambda bar: (bar.chunk_size, bar.score))


def _summary(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of a comparison's summary, by variant."""
    with (folder / "summary.csv").open(encoding="utf-8") as file:
        return {row["variant"]: row for row in csv.DictReader(file)}


def told(bars: Sequence[Bar]) -> str:
    """The picture in words."""
    scores = "; ".join(f"{bar.label}: {bar.score:.2f}" for bar in bars)
    return f"Brier-1 on held-out books, per cent. {scores}"


def draw(bars: Sequence[Bar]) -> str:
    """The picture as SVG."""
    end = TOP + STEP * len(bars)
    marks = []
    for tick in range(0, 16, 5):
        x = LEFT + UNIT * tick
        marks.append(f'<path class="grid" d="M{x} {TOP - 6} V{end}"/>')
        marks.append(f'<text class="note tick" x="{x}" y="{end + 18}">{tick}</text>')
    for place, bar in enumerate(bars):
        y, tip = TOP + STEP * place, LEFT + UNIT * bar.score
        after = tip + 8
        marks.append(f'<text class="name" x="{LEFT - 10}" y="{y + 16}">{bar.label}</text>')
        marks.append(
            f'<rect class="{bar.kind}" x="{LEFT}" y="{y}" width="{tip - LEFT:.1f}" height="21" '
            'rx="2"/>'
        )
        if bar.error is not None:
            reach = UNIT * bar.error
            after += reach
            marks.append(
                f'<path class="error" d="M{tip - reach:.1f} {y + 10.5} H{tip + reach:.1f}"/>'
            )
        marks.append(f'<text class="value" x="{after:.1f}" y="{y + 16}">{bar.score:.2f}</text>')
    legend = (("head", "heads of calmkit"), ("softmax", "softmax over tokens, of equal cost"),
              ("table", "counts of the training text"))  # fmt: skip
    x = 16
    for kind, text in legend:
        marks.append(
            f'<rect class="{kind}" x="{x}" y="{end + 32}" width="13" height="13" rx="2"/>'
        )
        marks.append(f'<text class="note" x="{x + 20}" y="{end + 43}">{text}</text>')
        x += 50 + 7 * len(text)
    height = end + 60
    body = "\n".join(f"  {mark}" for mark in marks)
    return PAGE.substitute(width=WIDTH, height=height, title=told(bars), marks=body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=PICTURE, help="the file to write")
    output = parser.parse_args().output
    output.write_text(draw(read_bars(ROOT / "benchmarks" / "results")), encoding="utf-8")
    print(output)
