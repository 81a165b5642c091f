"""`calmkit report`: merge several comparisons into one report, or print their tables."""

import itertools
from pathlib import Path
from typing import Literal

from calmkit.config import parse_function
from calmkit.reports import merged_report, report_folders, to_text

from .mistakes import mistakes
from .output import held, new_console, show

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Merge the folders given before the options; see `_options`."""
    given = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    folders = [Path(folder) for folder in given]
    with mistakes():
        chosen = parse_function(_options, options[len(folders) :], command="calmkit report")
        if chosen["format"] is not None:
            print(to_text(merged_report(folders), chosen["format"]), end="")
            return
    with held(chosen["output"]), mistakes():
        report, files = report_folders(folders, chosen["output"])
    show(report, files, chosen["output"], new_console())


def _options(
    *, output: Path = Path("runs/report"), format: Literal["markdown", "latex"] | None = None
) -> None:
    """Merge several comparisons into one report: calmkit report DIR DIR --output DIR.

    Args:
        output: Folder for the merged results.
        format: Only print the tables in this format, and write no files.
    """
