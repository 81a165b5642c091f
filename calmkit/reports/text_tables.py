"""A table of a report as text to paste: Markdown for a README, LaTeX for a paper.

The LaTeX needs the package `booktabs`. Numbers are those of the terminal, rounded alike.
"""

import re
from collections.abc import Callable, Iterator

from .base import Report, Table
from .columns import Cell, Column

__all__ = ["FORMATS", "to_latex", "to_markdown", "to_text"]

_NUMBER = re.compile(r"([+-]?[\d.]+)(?:e(-?\d+))?")
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "µ": r"$\mu$",
} | {character: f"\\{character}" for character in "#$%&_{}"}  # fmt: skip


def to_text(report: Report, form: str) -> str:
    """All tables of a report.

    Args:
        report: The report.
        form: One of `FORMATS`.
    """
    return "\n".join(FORMATS[form](table) for table in report.tables)


def to_markdown(table: Table) -> str:
    """The table in GitHub's Markdown, with its caption above."""
    headings = ["", *map(_heading, table.columns)]
    lines = [headings, ["---", *["---:"] * len(table.columns)]]
    for name, cells in _rows(table):
        lines.append([name.replace("|", "\\|"), *(f"{c.value} {c.error}".strip() for c in cells)])
    written = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([f"{table.caption}:", "", *written, ""])


def to_latex(table: Table) -> str:
    """The table as a `tabular`, with a line between variants and baselines."""
    body = [
        " & ".join([_escaped(name), *map(_cell, cells)]) + r" \\" for name, cells in _rows(table)
    ]
    if len(body) > table.variants:
        body.insert(table.variants, r"\midrule")
    headings = " & ".join(["", *(_escaped(_heading(column)) for column in table.columns)])
    return "\n".join(
        [
            f"% {table.caption}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            rf"{headings.lstrip()} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


FORMATS: dict[str, Callable[[Table], str]] = {"markdown": to_markdown, "latex": to_latex}
"""The functions that write a table, by format."""


def _heading(column: Column) -> str:
    upper, lower = column.heading
    return upper + lower if upper.endswith("/") else f"{upper} {lower}"


def _rows(table: Table) -> Iterator[tuple[str, list[Cell]]]:
    """The name and the cells of each row; a dash stands for a missing number."""
    for place, name in enumerate(table.rows):
        cells = (column.cells[place] for column in table.columns)
        yield name, [cell if cell.value else Cell("-") for cell in cells]


def _cell(cell: Cell) -> str:
    if not _NUMBER.fullmatch(cell.value):
        return "--" if cell.value == "-" else _escaped(cell.value.replace("-", "--"))
    error = rf" \pm {_power(cell.error.removeprefix('±'))}" if cell.error else ""
    return f"${_power(cell.value)}{error}$"


def _power(number: str) -> str:
    return _NUMBER.sub(
        lambda found: found[1] + (rf" \times 10^{{{found[2]}}}" if found[2] else ""), number
    )


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
