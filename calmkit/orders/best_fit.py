"""Best fit for any number of things: rows that are filled alike are counted, not listed.

Things of given lengths, the longest first, go to rows of one size, each to the row with the least
room that still takes it. Things of one length are interchangeable, and rows that hold the same
lengths are too. So what is packed is numbers: all rows of a *group* hold the same lengths, and one
step puts as many things of a length into rows of a group as they take. A thousand million things
of two hundred lengths are packed in some thousand steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Group", "Part", "best_fit"]


@dataclass(frozen=True)
class Part:
    """Things of one length in the rows of a group.

    Attributes:
        length: Their length.
        each: How many are in each row.
        first: The first of them, among all of this length: row r has those from
            first + r * each on.
    """

    length: int
    each: int
    first: int


@dataclass(frozen=True)
class Group:
    """Rows that hold the same lengths.

    Attributes:
        rows: How many rows.
        parts: What each holds, the longest first.
    """

    rows: int
    parts: tuple[Part, ...]

    def split(self, rows: int) -> tuple["Group", "Group"]:
        """The first rows and the others."""
        later = tuple(Part(p.length, p.each, p.first + rows * p.each) for p in self.parts)
        return Group(rows, self.parts), Group(self.rows - rows, later)


def best_fit(counts: Mapping[int, int], size: int) -> list[Group]:
    """Pack things by best fit, the longest first; of rows with equal room the last changed.

    Args:
        counts: How many things there are of each length, from 1 to `size`.
        size: Of a row.
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
