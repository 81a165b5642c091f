"""The content of a report, computed once for all renderers."""

from dataclasses import dataclass

from calmkit.comparison import ComparisonResult

from .columns import Column, columns_of
from .lines import Baseline, Line, baselines, lines_of
from .notes import notes

__all__ = ["Report", "Table"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of a report for the page, Markdown and LaTeX.

    Attributes:
        name: `scores` or `costs`.
        caption: A caption.
        columns: Its columns.
        rows: The name of each row: variants, then baselines.
        variants: Number of variants.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    variants: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """A result with its summary.

    Attributes:
        result: The results of every run.
        lines: One line per variant: scores with errors, and costs.
        baselines: The unigram baselines, shown below the variants.
        columns: The columns of the table, formatted as text.
        notes: Notes on the table, one per line.
    """

    result: ComparisonResult
    lines: tuple[Line, ...]
    baselines: tuple[Baseline, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """`held-out text`, or `text` if the training text of a model is unknown."""
        scored = [line for line in self.lines if not line.has_failed]
        return "text" if not all(line.baselines for line in scored) else "held-out text"

    @property
    def tables(self) -> list[Table]:
        """The tables that have columns: scores; costs and continued text, without baselines."""
        variants = tuple(line.name for line in self.lines)
        below = tuple(baseline.name for baseline in self.baselines)
        tables = [
            Table(
                name=name,
                caption=caption,
                columns=tuple(column for column in self.columns if column.group == name),
                rows=variants + extra,
                variants=len(variants),
            )
            for name, caption, extra in (
                ("scores", f"Scores on {self.text}, with standard errors", below),
                ("costs", "Costs, means over seeds", ()),
                ("texts", "Continued text, with standard errors", ()),
            )
        ]
        return [table for table in tables if table.columns]

    @classmethod
    def of(cls, result: ComparisonResult) -> "Report":
        """Summarize a result; resampling its documents takes most of the time of a report."""
        lines = tuple(lines_of(result))
        below = tuple(baselines(lines))
        return cls(
            result=result,
            lines=lines,
            baselines=below,
            columns=tuple(columns_of(lines, below)),
            notes=tuple(notes(result, lines)),
        )
