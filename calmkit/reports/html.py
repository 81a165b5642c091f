"""A report as a self-contained page: no network, embedded plots and one small script.

The page supports light and dark mode, phones and print. Wide tables scroll inside their boxes. The
script `page.js` sorts tables and copies them; without it everything can still be read. The
template escapes everything from a result (names, texts, configs, errors), since a generated text
may look like HTML.
"""

import base64
import re
from collections.abc import Sequence

from .base import Report
from .lines import listed
from .notes import BUDGETS, SEVERAL
from .plots import Plot
from .text_tables import to_latex, to_markdown
from .texts_to_read import texts_to_read

__all__ = ["to_page"]


def to_page(report: Report, plots: Sequence[Plot]) -> str:
    """The page as HTML, from the template `page.html`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calmkit.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "with_minus": _with_minus}
    result = report.result
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    return environment.get_template("page.html").render(
        report=report,
        plots=plots,
        lead=_lead(report),
        tables=[(table, to_markdown(table), to_latex(table)) for table in report.tables],
        written=texts_to_read(report.lines),
        versions=listed(versions, most=len(versions)),
        configs=_configs(report),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _with_minus(number: str) -> str:
    """The number with real minus signs; hyphens in words and ranges stay."""
    return re.sub(r"(^|e)-(?=\d)", "\\1\N{MINUS SIGN}", number)


def _lead(report: Report) -> str:
    """One sentence with the variants, their budget and the text."""
    result = report.result
    text = f"{report.text} ({result.corpus_name})"
    if len(result.variants) == 1:
        return f"{result.variants[0].name}, evaluated on {text}."
    budgets = " or ".join(BUDGETS.get(b, b) for b in result.budget.split(SEVERAL))
    counts = [len(line.summary.seeds) for line in report.lines if not line.has_failed]
    counts = counts or [len(result.seeds)]
    seeds = " to ".join(map(str, sorted({min(counts), max(counts)})))
    seeds = "one seed" if seeds == "1" else f"{seeds} seeds"
    names = listed([variant.name for variant in result.variants])
    return f"{names}, each with {budgets} and {seeds}, evaluated on {text}."


def _configs(report: Report) -> list[tuple[str, str]]:
    """Titles and texts of the non-empty configs."""
    configs = [("Effective config", report.result.config)]
    if len(report.lines) > 1:
        configs += [(f"Config of {line.name}", line.variant.config) for line in report.lines]
    return [(title, text) for title, text in configs if text.strip()]
