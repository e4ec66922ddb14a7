"""Trouble that a user can cause and cure: told in a line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, a missing file, an unwritable folder. The text names the value and the remedy; exit status 2."""
