"""Stored results of long runs, with their provenance: package data, so that an installed copy judges as this one."""

from pathlib import Path

#: Where the stored results are.
FOLDER = Path(__file__).parent
