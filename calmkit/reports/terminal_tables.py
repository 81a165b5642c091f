"""A report as tables for the terminal.

One table if the terminal is wide enough, otherwise continued text apart, and then scores and
costs, each in as many tables as it takes; see `split_table`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .base import Report
from .columns import Cell, Column
from .split_table import NumberColumn, SplitTable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["ReportTables"]

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

        report, title = self.report, f"scores on {self.report.text}"
        tables = [
            self._table(_TITLES.get(table.name, title), table.rows, table.columns)
            for table in report.tables
        ]
        rows = report.tables[0].rows
        together = self._table(title, rows, report.columns)
        rest = [column for column in report.columns if column.group != "texts"]
        texts = tables[-1:] if report.tables[-1].name == "texts" else []
        for some in ([together], [self._table(title, rows, rest), *texts]):
            if all(table.fits(options.max_width) for table in some):
                tables = some
                break
        yield from tables
        yield from (Text(note) for note in report.notes)

    def _table(self, title: str, rows: Sequence[str], columns: Sequence[Column]) -> SplitTable:
        return SplitTable(
            title=f"{self.report.result.name}: {title}",
            names=rows,
            columns=[
                NumberColumn("\n".join(column.heading), [*map(_text, column.cells[: len(rows)])])
                for column in columns
            ],
        )


def _text(cell: Cell) -> str:
    return f"{cell.value}\n{cell.error}" if cell.error else cell.value or "-"
