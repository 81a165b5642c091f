"""A report as tables for the terminal.

One table if the terminal is wide enough, otherwise scores and costs apart, each in as many tables
as it takes; see `split_table`.
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


@dataclass(frozen=True)
class ReportTables:
    """The tables of a report, with its notes below, for `rich.console.Console.print`."""

    report: Report

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        """The tables for a console's width."""
        from rich.text import Text

        scores, *costs = self.report.tables
        together = self._table(f"scores on {self.report.text}", scores.rows, self.report.columns)
        if together.fits(options.max_width):
            yield together
        else:
            yield self._table(f"scores on {self.report.text}", scores.rows, scores.columns)
            for table in costs:
                yield self._table("costs", table.rows, table.columns)
        yield from (Text(note) for note in self.report.notes)

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
