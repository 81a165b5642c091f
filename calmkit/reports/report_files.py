"""The files of a report: JSON, CSV, texts, pictures and a page.

results.json      all numbers; `read_results` reads it back
results.csv       a line for each variant and seed
summary.csv       a line for each variant: means, errors, differences
samples.txt       a text by each variant
report.html       a page with tables and pictures
plots/NAME.png    the pictures, and as SVG
"""

from pathlib import Path

from calmkit.comparison import ComparisonResult
from calmkit.files import replace_files

from .base import Report
from .csv_files import to_csv, to_summary_csv

__all__ = ["to_samples", "write_report"]


def to_samples(result: ComparisonResult) -> str:
    """The text that each variant wrote, under its name; that of its first seed."""
    written = [variant for variant in result.variants if variant.runs]
    return "\n".join(f"=== {one.name} ===\n{one.runs[0].sample_text}\n" for one in written)


def write_report(report: Report, directory: Path) -> list[Path]:
    """Write all files; each is replaced as a whole, and none if the disk is full.

    Args:
        report: What to write.
        directory: Made if missing; files of the same names are replaced.

    Returns:
        The files. Pictures whose numbers are missing are not among them.
    """
    from .html import to_page
    from .plots import draw_plots

    result, plots = report.result, draw_plots(report.lines)
    files: dict[str, str | bytes] = {
        "results.json": result.to_json() + "\n",
        "results.csv": to_csv(result),
        "summary.csv": to_summary_csv(report),
        "samples.txt": to_samples(result),
        "report.html": to_page(report, plots),
    }
    for plot in plots:
        files |= {f"plots/{plot.name}.png": plot.png, f"plots/{plot.name}.svg": plot.svg}
    (directory / "plots").mkdir(parents=True, exist_ok=True)
    replace_files({directory / name: content for name, content in files.items()})
    return [directory / name for name in files]
