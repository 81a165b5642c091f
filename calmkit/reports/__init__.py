"""What is shown of results: tables, pages, pictures and files."""

from .base import Report as Report
from .merging import report_folders as report_folders
from .report_files import write_report as write_report
from .summary import Summary as Summary
from .summary import summarize as summarize
from .table import to_table as to_table
