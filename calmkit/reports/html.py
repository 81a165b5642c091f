"""A report as one page that needs nothing else: no network, no script, pictures within.

Readable in light and dark, on a phone and on paper. Wide tables scroll in a box of their own.
Everything that comes from a result (names, texts, configs, reasons of failures) is escaped by the
template: a generated text may look like HTML.
"""

import base64
from collections.abc import Sequence

from .base import Report
from .lines import listed
from .notes import BUDGETS, SEVERAL
from .plots import Plot

__all__ = ["to_page"]


def to_page(report: Report, plots: Sequence[Plot]) -> str:
    """The page as HTML, from the template `page.html`.

    Args:
        report: What is shown.
        plots: Its pictures.
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
    result, lines = report.result, report.lines
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    return environment.get_template("page.html").render(
        report=report,
        plots=plots,
        lead=_lead(report),
        tables=_tables(report),
        written=[
            line for line in lines if not line.has_failed and line.variant.runs[0].sample_text
        ],
        versions=listed(versions, most=len(versions)),
        configs=_configs(report),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _lead(report: Report) -> str:
    """In a sentence: the variants, their budget and the text."""
    result = report.result
    text = f"{report.text} ({result.corpus_name})"
    if len(result.variants) == 1:
        return f"{result.variants[0].name}, measured on {text}."
    budgets = " or ".join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
    seeds = f"{len(result.seeds)} seeds" if len(result.seeds) > 1 else "one seed"
    names = listed([variant.name for variant in result.variants])
    return f"{names}, each with {budgets} and {seeds}, measured on {text}."


def _tables(report: Report) -> list[tuple[str, list, list[str]]]:
    """Captions, columns and names of lines; baselines have scores only."""
    names = [line.name for line in report.lines]
    groups = (
        ("scores", "Scores, with standard errors below", [b.name for b in report.baselines]),
        ("costs", "Costs, means over seeds", []),
    )
    tables = [
        (caption, [column for column in report.columns if column.group == group], names + extra)
        for group, caption, extra in groups
    ]
    return [table for table in tables if table[1]]


def _configs(report: Report) -> list[tuple[str, str]]:
    """Titles and texts of the configs, where there is anything in them."""
    configs = [("Effective config", report.result.config)]
    if len(report.lines) > 1:
        configs += [(f"Config of {line.name}", line.variant.config) for line in report.lines]
    return [(title, text) for title, text in configs if text.strip()]
