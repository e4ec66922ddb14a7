"""From a results folder to pictures and `report.html`; shared by `verify` and `figures`."""

from __future__ import annotations

from collections.abc import Sequence

from figures.render import render_all
from verification.registry import Topic
from verification.report import FigureView, write_report
from verification.store import Store


def publish(store: Store, topics: Sequence[Topic], names: Sequence[str] = ()) -> list[FigureView]:
    """Draw the figures whose records are there and write the report with all of them; return those asked for.

    Raises:
        UserError: a figure name that is not registered, or damaged results.
    """
    views = render_all(store, names)
    # The report shows every figure, also when only some were asked for.
    shown = render_all(store) if names else views
    write_report(store, topics, shown)
    return views
