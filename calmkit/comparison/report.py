"""A comparison on the screen and as files: tables, JSON, CSV, texts, pictures and a page.

    results.json      all of it; `read_results` reads it back
    results.csv       a line for each variant and seed
    summary.csv       a line for each variant: means, errors, differences
    samples.txt       what each variant wrote
    report.html       a page with tables and pictures
    plots/NAME.png    the pictures, and as SVG

A table is at most 100 columns wide; where one does not suffice, costs have their own. The unigram
row, token frequencies without any context, is what a head must beat.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calmkit.comparison.columns import Cell, Column, columns_of
from calmkit.comparison.csv_files import to_csv, to_summary_csv
from calmkit.comparison.notes import notes
from calmkit.comparison.results import ComparisonResult
from calmkit.comparison.rows import baselines, rows_of
from calmkit.files import replace_files

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["to_samples", "to_table", "write_report"]

_WIDTH = 100
_NAME_WIDTH = 20
_ROOM_AT_LEAST = 8


def to_table(result: ComparisonResult) -> "Group":
    """The result as rich tables, with notes below."""
    from rich.console import Group
    from rich.text import Text

    rows = rows_of(result)
    below = baselines(rows)
    columns = columns_of(rows, below)
    names = [row.name for row in rows] + [base.name for base in below]
    if _room(columns) >= min(_NAME_WIDTH, max(map(len, names))):
        tables = [_table(f"{result.name}: held-out text", names, columns)]
    else:
        scores, costs = (
            [column for column in columns if column.group == group]
            for group in ("scores", "costs")
        )
        tables = [
            _table(f"{result.name}: scores on held-out text", names, scores),
            _table(f"{result.name}: costs", names[: len(rows)], costs),
        ]
    return Group(*tables, *(Text(line) for line in notes(result, rows)))


def to_samples(result: ComparisonResult) -> str:
    """The text that each variant wrote, under its name; that of its first seed."""
    written = [variant for variant in result.variants if variant.runs]
    return "\n".join(f"=== {one.name} ===\n{one.runs[0].sample_text}\n" for one in written)


def write_report(result: ComparisonResult, directory: Path) -> list[Path]:
    """Write all files; each is replaced as a whole, and none if the disk is full.

    Args:
        result: What to report.
        directory: Made if missing; files of the same names are replaced.

    Returns:
        The files. Pictures whose numbers are missing are not among them.
    """
    from calmkit.comparison.page import to_page
    from calmkit.comparison.plots import draw_plots

    rows = rows_of(result)
    plots = draw_plots(rows)
    files: dict[str, str | bytes] = {
        "results.json": result.to_json() + "\n",
        "results.csv": to_csv(result),
        "summary.csv": to_summary_csv(result, rows),
        "samples.txt": to_samples(result),
        "report.html": to_page(result, rows, plots),
    }
    for plot in plots:
        files |= {f"plots/{plot.name}.png": plot.png, f"plots/{plot.name}.svg": plot.svg}
    (directory / "plots").mkdir(parents=True, exist_ok=True)
    replace_files({directory / name: content for name, content in files.items()})
    return [directory / name for name in files]


def _table(title: str, names: Sequence[str], columns: Sequence[Column]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column("\n".join(column.heading), justify="right", no_wrap=True)
    # A long name is broken, at its hyphens if it has any.
    room = max(_ROOM_AT_LEAST, _room(columns))
    for place, name in enumerate(names):
        cells = (_lines(column.cells[place]) for column in columns)
        table.add_row("\n".join(textwrap.wrap(name, room)), *cells)
    return table


def _lines(cell: Cell) -> str:
    return f"{cell.value or '-'}\n{cell.error}" if cell.error else cell.value or "-"


def _room(columns: Sequence[Column]) -> int:
    """Letters that columns, the gaps before them and the box's edges leave for names."""
    widths = []
    for column in columns:
        texts = [text for cell in column.cells for text in (cell.value, cell.error)]
        widths.append(1 + max(map(len, [*column.heading, *texts])))
    return _WIDTH - 2 - sum(widths)
