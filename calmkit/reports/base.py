"""Everything that is shown of a result, computed once for all renderers."""

from dataclasses import dataclass

from calmkit.comparison import ComparisonResult

from .columns import Column, columns_of
from .lines import Baseline, Row, baselines, rows_of
from .notes import notes

__all__ = ["Report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A result with its summary.

    Attributes:
        result: The numbers of every run.
        rows: One row for each variant: scores with errors, and costs.
        baselines: Scores of token frequencies, below the variants.
        columns: The columns of a table of both, as texts.
        notes: What a reader must know beside the table, a line each.
    """

    result: ComparisonResult
    rows: tuple[Row, ...]
    baselines: tuple[Baseline, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, result: ComparisonResult) -> "Report":
        """Summarize a result: this resamples its documents, which takes the time of a report."""
        rows = tuple(rows_of(result))
        below = tuple(baselines(rows))
        return cls(
            result=result,
            rows=rows,
            baselines=below,
            columns=tuple(columns_of(rows, below)),
            notes=tuple(notes(result, rows)),
        )
