"""Everything that is shown of a result, computed once for all renderers."""

from dataclasses import dataclass

from calmkit.comparison import ComparisonResult

from .columns import Column, columns_of
from .lines import Baseline, Line, baselines, lines_of
from .notes import notes

__all__ = ["Report"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A result with its summary.

    Attributes:
        result: The numbers of every run.
        lines: One line for each variant: scores with errors, and costs.
        baselines: Scores of token frequencies, below the variants.
        columns: The columns of a table of both, as texts.
        notes: What a reader must know beside the table, a line each.
    """

    result: ComparisonResult
    lines: tuple[Line, ...]
    baselines: tuple[Baseline, ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the models were measured on: held out, as far as it is known."""
        scored = [line for line in self.lines if not line.has_failed]
        return "text" if not all(line.baselines for line in scored) else "held-out text"

    @classmethod
    def of(cls, result: ComparisonResult) -> "Report":
        """Summarize a result: this resamples its documents, which takes the time of a report."""
        lines = tuple(lines_of(result))
        below = tuple(baselines(lines))
        return cls(
            result=result,
            lines=lines,
            baselines=below,
            columns=tuple(columns_of(lines, below)),
            notes=tuple(notes(result, lines)),
        )
