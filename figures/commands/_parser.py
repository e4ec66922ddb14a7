"""The parser of the command line: as argparse's, and it names what a mistyped choice may have meant."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from deq.names import nearest

_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<known>[^)]*)\)")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaint about a choice (a verb, a table, a scale) says which one is near."""

    def error(self, message: str) -> NoReturn:
        """Print usage and complaint and leave with status 2."""
        found = _CHOICE.search(message)
        if found is not None:
            known = [item.strip().strip("'") for item in found["known"].split(",")]
            near = nearest(found["given"], known)
            if near:
                message += f"; did you mean {' or '.join(repr(item) for item in near)}?"
        super().error(message)
