"""The self-contained report page."""

from verification.report.build import FigureView, write_report

__all__ = ["FigureView", "write_report"]
