"""A table of numbers for a terminal of any width.

Columns that do not fit follow in further tables below, with the names repeated. Long names are
wrapped; numbers are never cut. Names are text, never markup, and may have wide characters.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

__all__ = ["NumberColumn", "SplitTable"]

_NAME_WIDTH = 20
_ROOM_AT_LEAST = 8


@dataclass(frozen=True)
class NumberColumn:
    """A heading and a cell for each name; both may have several lines."""

    heading: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """Characters of its longest line."""
        return max(_width(text) for text in (self.heading, *self.cells))


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """A table for `rich.console.Console.print`.

    Attributes:
        title: Title of each part; empty for none.
        corner: Heading of the names.
        names: The names of the rows.
        columns: The numbers.
    """

    title: str = ""
    corner: str = ""
    names: Sequence[str]
    columns: Sequence[NumberColumn]

    def fits(self, width: int) -> bool:
        """Whether all columns fit beside the names, or beside the first part of long names."""
        wanted = min(_NAME_WIDTH, max(map(_width, (self.corner, *self.names))))
        return _room(self.columns, width) >= wanted

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "Iterator[Table]":
        """The parts for a console's width."""
        part = replace(self, columns=())
        for column in self.columns:
            longer = replace(part, columns=(*part.columns, column))
            if part.columns and not longer.fits(options.max_width):
                yield part._drawn(options.max_width)
                longer = replace(part, columns=(column,))
            part = longer
        yield part._drawn(options.max_width)

    def _drawn(self, width: int) -> "Table":
        from rich import box
        from rich.table import Table
        from rich.text import Text

        title = Text(self.title) if self.title else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        table.add_column(Text(self.corner), no_wrap=True)
        for column in self.columns:
            table.add_column(
                Text(column.heading), justify="right", no_wrap=True, min_width=column.width
            )
        room = max(_ROOM_AT_LEAST, _room(self.columns, width))
        for place, name in enumerate(self.names):
            cells = (Text(column.cells[place]) for column in self.columns)
            table.add_row(Text(_wrapped(name, room)), *cells)
        return table


def _room(columns: Sequence[NumberColumn], width: int) -> int:
    """Characters left for names by the columns, the gaps between them and the box."""
    return width - 2 - sum(1 + column.width for column in columns)


def _wrapped(name: str, room: int) -> str:
    """The name in lines, broken at hyphens if possible; a wide character takes two places."""
    from rich.cells import chop_cells

    lines = textwrap.wrap(name, room)
    return "\n".join(part for line in lines for part in chop_cells(line, room))


def _width(text: str) -> int:
    """Places of the longest line."""
    from rich.cells import cell_len

    return max(map(cell_len, text.split("\n")))
