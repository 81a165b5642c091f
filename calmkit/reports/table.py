"""A report as tables for the terminal.

One table if it is wide enough, otherwise continued text apart, and then scores and costs, each in
as many tables as it takes. Long names are wrapped; numbers are never cut.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Report
from .columns import Cell, Column

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

__all__ = ["ReportTables"]

_NAME_WIDTH = 20
_ROOM_AT_LEAST = 8
_TITLES = {"costs": "costs", "texts": "continued text"}


@dataclass(frozen=True)
class ReportTables:
    """The tables of a report, with its notes below, for `rich.console.Console.print`."""

    report: Report

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        """The tables for a console's width."""
        from rich.text import Text

        report, width = self.report, options.max_width
        names = [line.name for line in (*report.lines, *report.baselines)]
        for columns in _divided(report.columns, names, width):
            groups = {column.group for column in columns}
            title = _TITLES.get(min(groups), "") if len(groups) == 1 else ""
            rows = names[: len(report.lines)] if title else names
            title = title or f"scores on {report.text}"
            yield _table(f"{report.result.name}: {title}", rows, columns, width)
        yield from (Text(note) for note in report.notes)


def _divided(
    columns: Sequence[Column], names: Sequence[str], width: int
) -> Iterator[Sequence[Column]]:
    """The columns of each table."""
    wanted = min(_NAME_WIDTH, max(map(len, names)))
    texts = [column for column in columns if column.group == "texts"]
    for tables in ([columns], [columns[: len(columns) - len(texts)], texts]):
        if all(_room(some, width) >= wanted for some in tables):
            yield from filter(None, tables)
            return
    for group in ("scores", "costs", "texts"):
        table: list[Column] = []
        for column in columns:
            if column.group != group:
                continue
            if table and _room([*table, column], width) < wanted:
                yield table
                table = []
            table.append(column)
        if table:
            yield table


def _table(title: str, names: Sequence[str], columns: Sequence[Column], width: int) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(
            "\n".join(column.heading), justify="right", no_wrap=True, min_width=_width(column)
        )
    # Long names are wrapped, at hyphens if possible.
    room = max(_ROOM_AT_LEAST, _room(columns, width))
    for place, name in enumerate(names):
        cells = (_lines(column.cells[place]) for column in columns)
        table.add_row("\n".join(textwrap.wrap(name, room)), *cells)
    return table


def _lines(cell: Cell) -> str:
    return f"{cell.value or '-'}\n{cell.error}" if cell.error else cell.value or "-"


def _width(column: Column) -> int:
    texts = [text for cell in column.cells for text in (cell.value, cell.error)]
    return max(map(len, [*column.heading, *texts]))


def _room(columns: Sequence[Column], width: int) -> int:
    """Characters left for names by the columns, the gaps between them and the box."""
    return width - 2 - sum(1 + _width(column) for column in columns)
