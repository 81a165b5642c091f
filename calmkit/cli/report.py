"""`calmkit report`: several comparisons as one."""

import itertools
from pathlib import Path

from calmkit.config import parse_function
from calmkit.reports import report_folders

from .mistakes import mistakes
from .output import held, new_console, show

__all__ = ["run"]


def run(options: list[str]) -> None:
    """Merge the folders that are named before the options; see `_options` for those."""
    folders = list(itertools.takewhile(lambda option: not option.startswith("--"), options))
    with mistakes():
        chosen = parse_function(_options, options[len(folders) :], command="calmkit report")
    with held(chosen["output"]), mistakes():
        report, files = report_folders([Path(folder) for folder in folders], chosen["output"])
    show(report, files, chosen["output"], new_console())


def _options(*, output: Path = Path("runs/report")) -> None:
    """Put several comparisons side by side: calmkit report DIR DIR --output DIR.

    Args:
        output: Folder for the joint results.
    """
