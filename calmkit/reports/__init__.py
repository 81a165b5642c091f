"""Reports of results: tables, pages, plots and files."""

from .base import Report as Report
from .merging import report_folders as report_folders
from .report_files import write_report as write_report
from .terminal_tables import ReportTables as ReportTables

# isort: split
# For the other rooms of calmkit; no part of the public interface.
from .account_tables import account_notes as account_notes
from .account_tables import models_table as models_table
from .account_tables import parts_table as parts_table
from .data_report import data_picture as data_picture
from .data_report import data_text as data_text
from .diagnosis_files import write_diagnosis as write_diagnosis
from .merging import RESULTS as RESULTS
from .merging import merged_report as merged_report
from .text_tables import to_text as to_text
