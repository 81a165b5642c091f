"""A report on a terminal.

A table is at most 100 columns wide; where one does not suffice, costs have their own.
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Report
from .columns import Cell, Column

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["to_table"]

_WIDTH = 100
_NAME_WIDTH = 20
_ROOM_AT_LEAST = 8


def to_table(report: Report) -> "Group":
    """The report as rich tables, with notes below."""
    from rich.console import Group
    from rich.text import Text

    name, columns = report.result.name, report.columns
    names = [line.name for line in (*report.lines, *report.baselines)]
    if _room(columns) >= min(_NAME_WIDTH, max(map(len, names))):
        tables = [_table(f"{name}: scores on {report.text}", names, columns)]
    else:
        scores, costs = (
            [column for column in columns if column.group == group]
            for group in ("scores", "costs")
        )
        tables = [
            _table(f"{name}: scores on {report.text}", names, scores),
            _table(f"{name}: costs", names[: len(report.lines)], costs),
        ]
    return Group(*tables, *(Text(line) for line in report.notes))


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
