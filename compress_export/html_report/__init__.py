"""report.html: a run, or several beside each other, as one page that opens offline."""

from compress_export.html_report.compare import write_comparison
from compress_export.html_report.page import PAGE, redraw, write_html_report, write_report_to

__all__ = ["PAGE", "redraw", "write_comparison", "write_html_report", "write_report_to"]
