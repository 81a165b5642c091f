"""Best-fit packing of any number of items: rows with the same content are counted, not listed.

Items are packed into rows of one size, longest first, each into the row with the least remaining
room that still fits it. Items of one length are interchangeable, and so are rows that hold the
same lengths. The algorithm therefore works on counts: all rows of a *group* hold the same lengths,
and one step fills the rows of a group with as many items of a length as fit. A billion items of
two hundred lengths are packed in several thousand steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Group", "Part", "best_fit"]


@dataclass(frozen=True)
class Part:
    """Items of one length in the rows of a group.

    Attributes:
        length: Their length.
        each: Number of them in each row.
        first: Index of the first one among all items of this length; those of row r start at
            first + r * each.
    """

    length: int
    each: int
    first: int


@dataclass(frozen=True)
class Group:
    """Rows that hold the same lengths.

    Attributes:
        rows: Number of rows.
        parts: Content of each row, longest first.
    """

    rows: int
    parts: tuple[Part, ...]

    def split(self, rows: int) -> tuple["Group", "Group"]:
        """Split into the first rows and the rest."""
        later = tuple(Part(p.length, p.each, p.first + rows * p.each) for p in self.parts)
        return Group(rows, self.parts), Group(self.rows - rows, later)


def best_fit(counts: Mapping[int, int], size: int) -> list[Group]:
    """Pack items by best fit, longest first; ties go to the most recently changed row.

    Args:
        counts: Number of items of each length, from 1 to `size`.
        size: Size of a row.
    """
    with_room: list[list[Group]] = [[] for _ in range(size + 1)]
    for length in sorted(counts, reverse=True):
        first, left = 0, counts[length]
        while left > 0:
            room = next((room for room in range(length, size + 1) if with_room[room]), None)
            group = Group(left, ()) if room is None else with_room[room].pop()
            room = size if room is None else room
            each = min(room // length, left)
            filled, others = group.split(min(group.rows, left // each))
            if others.rows and others.parts:
                with_room[room].append(others)
            part = Part(length, each, first)
            with_room[room - each * length].append(Group(filled.rows, (*filled.parts, part)))
            first, left = first + filled.rows * each, left - filled.rows * each
    return [group for groups in with_room for group in groups]
