"""The self-contained report page."""

from verification.report.blocks import Block, Folded, Page, Picture, Table, Words
from verification.report.build import FigureView, write_report

__all__ = ["Block", "FigureView", "Folded", "Page", "Picture", "Table", "Words", "write_report"]
