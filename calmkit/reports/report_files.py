"""The files of a report: JSON, CSV, sample texts, plots and a page.

results.json      all numbers, for `read_results`
results.csv       one line per variant and seed
summary.csv       one line per variant: means, errors, differences
samples.txt       sample texts of each variant, by temperature
report.html       a page with tables and plots
plots/NAME.png    the plots, also as SVG
"""

from pathlib import Path

from calmkit.files import replace_files

from .base import Report
from .csv_files import to_csv, to_summary_csv
from .texts_to_read import to_samples

__all__ = ["write_report"]


def write_report(report: Report, directory: Path) -> list[Path]:
    """Write all files; each is replaced as a whole, or none of them if the disk is full.

    Args:
        report: The report.
        directory: Folder, created if missing; existing files are replaced.

    Returns:
        The files, without plots for which there are no numbers.
    """
    from .html import to_page
    from .plots import draw_plots

    result, plots = report.result, draw_plots(report.lines)
    files: dict[str, str | bytes] = {
        "results.json": result.to_json() + "\n",
        "results.csv": to_csv(result),
        "summary.csv": to_summary_csv(report),
        "samples.txt": to_samples(report.lines),
        "report.html": to_page(report, plots),
    }
    for plot in plots:
        files |= {f"plots/{plot.name}.png": plot.png, f"plots/{plot.name}.svg": plot.svg}
    (directory / "plots").mkdir(parents=True, exist_ok=True)
    replace_files({directory / name: content for name, content in files.items()})
    return [directory / name for name in files]
