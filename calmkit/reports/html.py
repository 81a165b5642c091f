"""A report as a self-contained page: no network, no scripts, embedded plots.

The page supports light and dark mode, phones and print. Wide tables scroll inside their boxes. The
template escapes everything from a result (names, texts, configs, errors), since a generated text
may look like HTML.
"""

import base64
from collections.abc import Sequence

from .base import Report
from .lines import listed
from .notes import BUDGETS, SEVERAL
from .plots import Plot
from .texts_to_read import texts_to_read

__all__ = ["to_page"]


def to_page(report: Report, plots: Sequence[Plot]) -> str:
    """The page as HTML, from the template `page.html`.

    Args:
        report: The report.
        plots: Its plots.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calmkit.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = _base64
    result = report.result
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    return environment.get_template("page.html").render(
        report=report,
        plots=plots,
        lead=_lead(report),
        tables=_tables(report),
        written=texts_to_read(report.lines),
        versions=listed(versions, most=len(versions)),
        configs=_configs(report),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _lead(report: Report) -> str:
    """One sentence with the variants, their budget and the text."""
    result = report.result
    text = f"{report.text} ({result.corpus_name})"
    if len(result.variants) == 1:
        return f"{result.variants[0].name}, evaluated on {text}."
    budgets = " or ".join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
    seeds = f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"
    names = listed([variant.name for variant in result.variants])
    return f"{names}, each with {budgets} and {seeds}, evaluated on {text}."


def _tables(report: Report) -> list[tuple[str, list, list[str]]]:
    """Captions, columns and line names of the tables; baselines have no costs."""
    names, below = ([x.name for x in some] for some in (report.lines, report.baselines))
    groups = (
        ("scores", "Scores, with standard errors below", below),
        ("costs", "Costs, means over seeds", []),
        ("texts", "Continued text, with standard errors below", []),
    )
    tables = [
        (caption, [column for column in report.columns if column.group == group], names + extra)
        for group, caption, extra in groups
    ]
    return [table for table in tables if table[1]]


def _configs(report: Report) -> list[tuple[str, str]]:
    """Titles and texts of the non-empty configs."""
    configs = [("Effective config", report.result.config)]
    if len(report.lines) > 1:
        configs += [(f"Config of {line.name}", line.variant.config) for line in report.lines]
    return [(title, text) for title, text in configs if text.strip()]
