"""Tables on narrow terminals: names may be wrapped, numbers are whole."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from calmkit.reports.split_table import NumberColumn, SplitTable

UGLY = (
    "a_long_name_without_any_hyphen_" + 60 * "x",
    30 * "\u540d",  # each takes two places
    "[bold]not markup[/bold]",
    "e",
)


def shown(table, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(table)
    return console.file.getvalue()


def table(**changes):
    columns = [
        NumberColumn(f"number\n{place}", [f"{place}.{row}2345678" for row in range(len(UGLY))])
        for place in range(6)
    ]
    return SplitTable(**({"title": 70 * "t", "names": UGLY, "columns": columns} | changes))


@pytest.mark.parametrize("width", [25, 40, 60, 80, 250])
def test_every_number_is_whole_and_no_line_too_long(width):
    text = shown(table(), width)
    assert max(map(cell_len, text.splitlines())) <= width and "\u2026" not in text
    words = text.split()
    for column in table().columns:
        assert all(words.count(cell) == 1 for cell in column.cells)
    # Each part has all names, and nothing of them is lost.
    parts = text.count("number") and len([line for line in text.splitlines() if "\u2500" in line])
    assert text.count("\u540d") == 30 * parts and text.count("x") == 60 * parts
    whole = "".join(words)
    assert "[bold]" in whole and "[/bold]" in whole


def test_as_many_columns_as_fit_stand_side_by_side():
    """Ten characters and a gap each; the names take what they need, at most twenty."""
    few = table(names=("ab", "c", "d", "e"), title="")
    assert few.fits(2 + 2 + 6 * 11) and not few.fits(2 + 2 + 6 * 11 - 1)
    assert table().fits(2 + 20 + 6 * 11) and not table().fits(2 + 20 + 6 * 11 - 1)
    rules = [line for line in shown(few, 2 + 2 + 4 * 11).splitlines() if "\u2500" in line]
    assert len(rules) == 2


def test_the_corner_has_the_heading_of_the_names():
    text = shown(table(corner="model", names=tuple("abcd")), 30)
    assert text.count("model") == len([line for line in text.splitlines() if "\u2500" in line])
