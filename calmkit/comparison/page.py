"""A comparison as one page that needs nothing else: no network, no script, pictures within.

Readable in light and dark, on a phone and on paper. Wide tables scroll in a box of their own. All
that comes from a result (names, texts, configs, reasons of failures) is escaped: a generated text
may look like HTML.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from calmkit.comparison.columns import Cell, Column, columns_of
from calmkit.comparison.notes import BUDGETS, SEVERAL, notes
from calmkit.comparison.plots import Plot
from calmkit.comparison.results import ComparisonResult
from calmkit.comparison.rows import Row, baselines, listed

__all__ = ["to_page"]


def to_page(result: ComparisonResult, rows: Sequence[Row], plots: Sequence[Plot]) -> str:
    """The page as HTML.

    Args:
        result: What is reported.
        rows: Its rows.
        plots: Its pictures.
    """
    template = files("calmkit.comparison").joinpath("page.html").read_text(encoding="utf-8")
    sections = [
        _section("Scores and costs", _tables(rows)),
        _section("Notes", _notes(result, rows)),
        _section("Pictures", _pictures(plots)),
        _section("Texts", _texts(rows)),
        _section("Setting", _setting(result, rows)),
    ]
    return Template(template).substitute(
        title=escape(result.name), lead=escape(_lead(result)), sections=_lines(sections)
    )


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _section(heading: str, content: str) -> str:
    if not content:
        return ""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{content}\n</section>"


def _lead(result: ComparisonResult) -> str:
    """What was compared, under which budget, in a sentence."""
    text = f"held-out text ({result.corpus_name})"
    if len(result.variants) == 1:
        return f"{result.variants[0].name}, measured on {text}."
    budgets = " or ".join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
    seeds = f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"
    names = listed([variant.name for variant in result.variants])
    return f"{names}, each with {budgets} and {seeds}, measured on {text}."


def _tables(rows: Sequence[Row]) -> str:
    below = baselines(rows)
    columns = columns_of(rows, below)
    names = [row.name for row in rows]
    parts = []
    for group, caption, extra in (
        ("scores", "Scores, with standard errors below", [base.name for base in below]),
        ("costs", "Costs, means over seeds", []),
    ):
        if chosen := [column for column in columns if column.group == group]:
            parts.append(_table(caption, [*names, *extra], chosen, len(names)))
    about = [
        f"<dt>{escape(_words(column))}</dt><dd>{escape(column.about)}</dd>" for column in columns
    ]
    parts.append(
        "<details>\n<summary>What the columns are</summary>\n"
        f'<dl class="columns">\n{_lines(about)}\n</dl>\n</details>'
    )
    return _lines(parts)


def _table(caption: str, names: Sequence[str], columns: Sequence[Column], variants: int) -> str:
    heads = "".join(f'<th scope="col">{_heading(column)}</th>' for column in columns)
    lines = []
    for place, name in enumerate(names):
        cells = "".join(f"<td>{_cell(column.cells[place])}</td>" for column in columns)
        kind = ' class="baseline"' if place >= variants else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(name)}</th>{cells}</tr>')
    # A box that scrolls must be reached by keyboard, and so be a named region.
    return (
        f'<div class="box" role="region" aria-label="{escape(caption)}" tabindex="0">\n<table>\n'
        f"<caption>{escape(caption)}</caption>\n"
        f'<thead>\n<tr><th scope="col">variant</th>{heads}</tr>\n</thead>\n'
        f"<tbody>\n{_lines(lines)}\n</tbody>\n</table>\n</div>"
    )


def _words(column: Column) -> str:
    first, second = column.heading
    return f"{first}{second}" if first.endswith("/") else f"{first} {second}"


def _heading(column: Column) -> str:
    first, second = column.heading
    return f"{escape(first)} <small>{escape(second)}</small>"


def _cell(cell: Cell) -> str:
    value = escape(cell.value or "\N{EN DASH}").replace("-", "\N{MINUS SIGN}")
    return f"{value} <small>{escape(cell.error)}</small>" if cell.error else value


def _notes(result: ComparisonResult, rows: Sequence[Row]) -> str:
    items = [f"<li>{escape(line)}</li>" for line in notes(result, rows)]
    return f"<ul>\n{_lines(items)}\n</ul>"


def _pictures(plots: Sequence[Plot]) -> str:
    if not plots:
        return ""
    return f'<div class="plots">\n{_lines(map(_figure, plots))}\n</div>'


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.svg).decode("ascii")
    width, height = plot.size
    return (
        f"<figure>\n<h3>{escape(plot.title)}</h3>\n"
        f'<img alt="{escape(plot.title)}" width="{width}" height="{height}" '
        f'src="data:image/svg+xml;base64,{data}">\n'
        f"<figcaption>{escape(plot.about)}</figcaption>\n</figure>"
    )


def _texts(rows: Sequence[Row]) -> str:
    written = [row for row in rows if not row.has_failed and row.variant.runs[0].sample_text]
    if not written:
        return ""
    parts = [
        f"<section>\n<h3>{escape(row.name)}</h3>\n"
        f"<blockquote>{escape(row.variant.runs[0].sample_text)}</blockquote>\n</section>"
        for row in written
    ]
    return f'<div class="texts">\n{_lines(parts)}\n</div>'


def _setting(result: ComparisonResult, rows: Sequence[Row]) -> str:
    versions = listed([f"{name} {version}" for name, version in result.versions.items()], most=99)
    parts = [f"<p>{escape(result.hardware)}. {escape(versions)}.</p>"]
    configs = [("Effective config", result.config)]
    if len(rows) > 1:
        configs += [(f"Config of {row.name}", row.variant.config) for row in rows]
    parts += [
        f"<details>\n<summary>{escape(title)}</summary>\n<pre>{escape(text)}</pre>\n</details>"
        for title, text in configs
        if text.strip()
    ]
    return _lines(parts)
