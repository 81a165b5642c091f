"""The results of a command: a folder, which first receives the config, and the terminal."""

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from rich.console import Console

from calmkit import __version__
from calmkit.comparison import ComparisonResult
from calmkit.experiments import Checkpoint
from calmkit.files import replace_file
from calmkit.locks import only_one_in
from calmkit.reports import Report, ReportTables, write_report

from .mistakes import mistakes

__all__ = [
    "folder_for_results", "held", "make_folder", "new_console", "show", "start_output",
    "write_and_show",
]  # fmt: skip


def folder_for_results(place: Path, checkpoint: Checkpoint, name: str) -> Path:
    """The folder for results about a model, if no option names one.

    Args:
        place: The model as the user named it.
        checkpoint: The same, loaded.
        name: The folder inside.

    Returns:
        One inside the model's folder; for a model of the hub, whose folder is the hub's cache, one
        below `runs`.
    """
    return (place if checkpoint.folder == place else Path("runs") / place.name) / name


def held(directory: Path) -> AbstractContextManager[object]:
    """Lock the results folder, which is created if missing, against other commands.

    Raises:
        Mistake: If the folder cannot be written or is locked by another process.
    """
    holding = ExitStack()
    with mistakes():
        make_folder(directory)
        holding.enter_context(only_one_in(directory, name="output"))
    return holding


def start_output(directory: Path, command: str, text: str) -> None:
    """Write the effective config first, so that it also documents a killed run.

    Raises:
        ValueError: If the folder cannot be written.
    """
    head = f"# The effective config, by calmkit {__version__}. To run it again:\n"
    path = directory / "config.yaml"
    make_folder(directory)
    replace_file(path, f"{head}#   calmkit {command} --config {path}\n{text}")


def make_folder(directory: Path) -> None:
    """Create a results folder if it is missing.

    Raises:
        ValueError: If the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ValueError(
            f"output must be a folder that can be written; got {directory}: {error.strerror}."
        ) from None


def write_and_show(result: ComparisonResult, directory: Path, console: Console) -> Report:
    """Write the report of a result to its folder, and print it; return it."""
    report = Report.of(result)
    files = [*write_report(report, directory), directory / "config.yaml"]
    show(report, files, directory, console)
    return report


def show(report: Report, files: Sequence[Path], directory: Path, console: Console) -> None:
    """Print a report and the names of its files."""
    console.print(ReportTables(report))
    names = ", ".join(str(file.relative_to(directory)) for file in files)
    console.print(f"{directory}/: {names}", markup=False, highlight=False)


def new_console() -> Console:
    """A console for stdout."""
    console = Console()
    # A pipe or a log has no width of its own, and rich's default of 80 would break the table.
    return console if console.is_terminal else Console(width=100)
