"""Tables as Markdown and LaTeX: what a renderer would read is what the report has."""

import pytest
import sample_results as samples

from calmkit.metrics import Estimate
from calmkit.reports import Report, to_text
from calmkit.reports.base import Table
from calmkit.reports.columns import Cell, Column, rounded
from calmkit.reports.text_tables import FORMATS, to_latex, to_markdown


def table(*cells, heading=("Brier-1", "% ↑"), rows=None, variants=None):
    rows = rows or tuple(f"v{n}" for n in range(len(cells)))
    column = Column(heading=heading, about="", group="scores", cells=cells)
    return Table(
        name="scores", caption="Scores", columns=(column,), rows=rows,
        variants=len(rows) if variants is None else variants,
    )  # fmt: skip


def latex_cells(text):
    """Of each row, without the commands between them."""
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    return [[cell.strip() for cell in row[:-2].split("&")] for row in rows]


@pytest.mark.parametrize("found", [samples.ten(), samples.only_measured()], ids=["10", "1"])
def test_every_number_of_a_report_is_in_both(found):
    report = Report.of(found)
    for one in report.tables:
        lines = [line.strip("|").split("|") for line in to_markdown(one).splitlines()[2:]]
        assert len(lines) == 2 + len(one.rows)
        assert {len(line) for line in lines} == {1 + len(one.columns)}
        rows = latex_cells(to_latex(one))
        assert len(rows) == 1 + len(one.rows)
        assert {len(row) for row in rows} == {1 + len(one.columns)}
        for place, name in enumerate(one.rows):
            assert lines[2 + place][0].strip() == name
            for number, column in enumerate(one.columns, 1):
                cell = column.cells[place]
                shown = f"{cell.value or '-'} {cell.error}".strip()
                assert lines[2 + place][number].strip() == shown
    for form in FORMATS:
        assert to_text(report, form).count("Costs") == 1


def test_markdown():
    text = to_markdown(table(Cell("3.09", "±0.16"), Cell(), rows=("a|b", "c")))
    assert text.splitlines() == [
        "Scores:", "", "|  | Brier-1 % ↑ |", "| --- | ---: |", "| a\\|b | 3.09 ±0.16 |",
        "| c | - |",
    ]  # fmt: skip


def test_latex_has_a_line_before_the_baselines():
    cells = Cell("3.09", "±0.16"), Cell(), Cell("1")
    text = to_latex(table(*cells, rows=("a", "b", "unigram"), variants=2))
    assert text.splitlines() == [
        "% Scores", r"\begin{tabular}{lr}", r"\toprule", r"& Brier-1 \% $\uparrow$ \\",
        r"\midrule", r"a & $3.09 \pm 0.16$ \\", r"b & -- \\", r"\midrule", r"unigram & $1$ \\",
        r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (rounded(Estimate(-3.84e-5, 9.1e-6)), r"$-3.8 \times 10^{-5} \pm 9 \times 10^{-6}$"),
        (Cell("2.50e13"), r"$2.50 \times 10^{13}$"),
        (Cell("+0.928", "±0.048"), r"$+0.928 \pm 0.048$"),
        (Cell("1.35M"), "1.35M"),
        (Cell("0-2,5"), "0--2,5"),
        (Cell("failed"), "failed"),
    ],
)
def test_numbers_in_latex(cell, text):
    assert latex_cells(to_latex(table(cell)))[1][1] == text


def test_names_in_latex_are_text():
    name = r"a_b \ 50% {x} $y$ #1 ~ ^"
    (row,) = latex_cells(to_latex(table(Cell("1"), rows=(name,))))[1:]
    assert row[0] == (
        r"a\_b \textbackslash{} 50\% \{x\} \$y\$ \#1 \textasciitilde{} \textasciicircum{}"
    )
    heading = latex_cells(to_latex(table(Cell("1"), heading=("µs/", "token"))))[0][1]
    assert heading == r"$\mu$s/token"
