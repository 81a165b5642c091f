"""`calmkit report`: merge several comparisons into one report."""

import itertools
from pathlib import Path

from calmkit.config import parse_function
from calmkit.reports import report_folders

from .mistakes import mistakes
from .output import held, new_console, show

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Merge the folders given before the options; see `_options`."""
    folders = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    with mistakes():
        chosen = parse_function(_options, options[len(folders) :], command="calmkit report")
    with held(chosen["output"]), mistakes():
        report, files = report_folders([Path(folder) for folder in folders], chosen["output"])
    show(report, files, chosen["output"], new_console())


def _options(*, output: Path = Path("runs/report")) -> None:
    """Merge several comparisons into one report: calmkit report DIR DIR --output DIR.

    Args:
        output: Folder for the merged results.
    """
