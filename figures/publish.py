"""From a results folder to pictures, pages and `report.html`; shared by `verify` and `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from figures.pages import make_pages
from figures.render import render_all
from verification.registry import Topic
from verification.report import FigureView, write_report
from verification.store import Store


@dataclass(frozen=True)
class Published:
    """What was made.

    Attributes:
        figures: those that were asked for, drawn, skipped or failed.
        problems: a line for each figure or page that raised.
    """

    figures: Sequence[FigureView]
    problems: Sequence[str]


def publish(store: Store, topics: Sequence[Topic], names: Sequence[str] = (), jobs: int = 1) -> Published:
    """Draw the figures and make the pages whose records are there, and write the report with all of them.

    Raises:
        UserError: a figure name that is not registered, or damaged results.
    """
    views = render_all(store, names, jobs)
    # The report shows every figure, also when only some were asked for.
    shown = render_all(store, jobs=jobs) if names else views
    pages = make_pages(store)
    write_report(store, topics, shown, pages)
    problems = [f"figure {view.name}: {view.problem}" for view in shown if view.problem]
    problems += [f"page {page.name}: {page.problem}" for page in pages if page.problem]
    return Published(views, problems)
