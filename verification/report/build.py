"""Gathers what the report shows and fills the template. The page needs nothing from outside itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from verification.coverage import not_covered
from verification.paper.places import PLACES
from verification.registry import Topic
from verification.report import typeset
from verification.report.blocks import Page, Picture, Table
from verification.report.markup import drawing
from verification.result import ClaimResult
from verification.store import Store, write_text
from verification.terminal import MARKS
from verification.verdict import Verdict

#: What each verdict means, for the reader who opens the report first.
MEANINGS = {
    Verdict.PROVED: "A computer-algebra or interval proof covers the whole statement.",
    Verdict.SUPPORTED: "Independent evidence agrees with the statement; it is no proof.",
    Verdict.CORRECTED: "The statement as printed fails; the mended one beside it holds.",
    Verdict.REFUTED: "The statement fails; a counterexample or a measurement is shown.",
    Verdict.UNDECIDED: "The evidence does not settle it.",
    Verdict.UNTESTED: "What the test needs is not at hand; it says what is missing.",
    Verdict.VACUOUS: "The test could not have failed, so it says nothing.",
    Verdict.ERROR: "The check raised, or its negative control did not come out.",
}
#: Whose statements these are, by the first part of a claim's id.
SOURCES = {"sm": "[SM] score matching", "rmt": "[RMT] random matrices", "own": "Results of this project"}
_OUTCOME_MARKS = {"holds": "✓", "fails": "✗", "unknown": "?", "vacuous": "∅"}


@dataclass
class FigureView:
    """A figure as the report shows it.

    Attributes:
        name, title, caption: as registered.
        svg: markup by theme, "light" and "dark"; empty where it was not drawn.
        skipped: why it was left out, where a record is not there.
        problem: the error, where drawing raised; `trace` has the traceback.
    """

    name: str
    title: str
    caption: str
    svg: dict[str, str] = field(default_factory=dict)
    skipped: str = ""
    problem: str = ""
    trace: str = ""


def write_report(store: Store, topics: Sequence[Topic], figures: Sequence[FigureView],
                 pages: Sequence[Page] = ()) -> None:
    """Write `OUT/report.html` from the stored results and the drawn figures.

    Raises:
        UserError: the stored results are missing or damaged.
    """
    write_text(store.out / "report.html", render(store.load_claims(), store.load_run(), topics, figures, pages))


def render(results: Sequence[ClaimResult], run: Mapping[str, Any], topics: Sequence[Topic],
           figures: Sequence[FigureView], pages: Sequence[Page] = ()) -> str:
    """The page as a string."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update(prose=typeset.prose, phrase=typeset.phrase, number=typeset.number, label=typeset.label,
                               duration=typeset.duration, aligned=_aligned)
    environment.globals.update(kind=lambda block: type(block).__name__, OUTCOMES=_OUTCOME_MARKS,
                               MARKS={str(key): value for key, value in MARKS.items()})
    figures = [_harmless(view) for view in figures]
    drawn = {view.name: view for view in figures if view.svg}
    places = _places(results, drawn)
    on_pages = {block.name for page in pages for block in page.blocks if isinstance(block, Picture)}
    return environment.from_string(_asset("report.html")).render(
        css=Markup(_asset("report.css")), js=Markup(_asset("report.js")), run=run, results=results,
        headline=headline(results, run), counts=_counts(results), topics=_by_topic(results, topics), pages=pages,
        sources=_by_source(results), literal=literal_line(results),
        deviations=[result for result in results if result.deviates], meanings=MEANINGS, figures=drawn, places=places,
        gallery=[view for view in drawn.values() if view.name not in {*places, *on_pages}],
        broken=[(item.name, item.problem) for group in (figures, pages) for item in group if item.problem],
        missing=_missing(results), not_covered=not_covered(),
        covered=[place for place in PLACES if place.claims], shown={result.id for result in results})


def _harmless(view: FigureView) -> FigureView:
    """The figure with its drawings as markup, or with the reason why they cannot stand in the page."""
    try:
        return replace(view, svg={theme: drawing(svg) for theme, svg in view.svg.items()})
    except ValueError as error:
        return replace(view, svg={}, problem=str(error))


def _aligned(table: Table) -> dict[int, list[Markup]]:
    """Cells of the columns of numbers, by column."""
    return {index: typeset.column([row[index] for row in table.rows])
            for index, numeric in enumerate(table.numeric) if numeric}


def headline(results: Sequence[ClaimResult], run: Mapping[str, Any]) -> str:
    """The verdict of the whole run in one sentence."""
    total, wrong = len(results), sum(result.deviates for result in results)
    untested = sum(result.verdict is Verdict.UNTESTED for result in results)
    tested = total - untested
    if run["state"] != "complete":
        return f"Partial run: {total} of {run.get('claims', '?')} claims are finished."
    if not total:
        return "No claims in this run."
    if wrong:
        return f"{wrong} of {tested} claims came out otherwise than expected."
    if not tested:
        return f"None of the {total} claims could be tested here."
    literal = sum(result.literal and result.verdict is not Verdict.UNTESTED for result in results)
    start = ("The one claim" if tested == 1 else f"All {tested} claims") + " tested came out as expected"
    if literal:
        start += f", {literal} of them the papers' statements word for word"
    return start + (f"; {untested} could not be tested here." if untested else ".")


def literal_line(results: Sequence[ClaimResult]) -> str:
    """Statements of the papers taken at their word, counted apart from those with an assumption of ours."""
    rows = [result for result in results if result.literal]
    if not rows:
        return ""
    tally = ", ".join(f"{count} {verdict}" for verdict, count in _counts(rows))
    return (f"{len(rows)} of them are statements of the two papers taken at their word: {tally}. The others mend a "
            "statement, add an assumption of ours, or are results of this project.")


def _counts(results: Sequence[ClaimResult]) -> list[tuple[str, int]]:
    """Verdict and count, for verdicts that occur."""
    counts = Counter(result.verdict for result in results)
    return [(str(verdict), counts[verdict]) for verdict in Verdict if counts[verdict]]


def _by_source(results: Sequence[ClaimResult]) -> list[tuple[str, int, list[tuple[str, int]]]]:
    groups = []
    for key, title in SOURCES.items():
        mine = [result for result in results if result.id.startswith(f"{key}-")]
        word, rest = [row for row in mine if row.literal], [row for row in mine if not row.literal]
        groups += [(f"{title}, literal", word), (f"{title}, mended or with an assumption", rest)] if word else [
            (title, rest)]
    return [(title, len(rows), _counts(rows)) for title, rows in groups if rows]


def _by_topic(results: Sequence[ClaimResult], topics: Sequence[Topic]) -> list[dict[str, Any]]:
    titles = {topic.name: topic.title for topic in topics}
    names = dict.fromkeys(result.topic for result in results)
    groups = []
    for name in names:
        rows = [result for result in results if result.topic == name]
        groups.append({"name": name, "title": titles.get(name, name), "results": rows, "counts": _counts(rows),
                       "deviates": any(row.deviates for row in rows), "seconds": sum(row.seconds for row in rows)})
    return groups


def _places(results: Sequence[ClaimResult], drawn: Mapping[str, FigureView]) -> dict[str, str]:
    """The claim at which each figure stands: the first that names it; others link there."""
    places: dict[str, str] = {}
    for result in results:
        for name in result.figures:
            if name in drawn:
                places.setdefault(name, result.id)
    return places


def _missing(results: Sequence[ClaimResult]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[ClaimResult]] = {}
    for result in results:
        for item in result.missing:
            groups.setdefault((item["what"], item["remedy"]), []).append(result)
    return [{"what": what, "remedy": remedy, "results": rows} for (what, remedy), rows in groups.items()]


def _asset(name: str) -> str:
    return (resources.files("verification.report") / name).read_text(encoding="utf-8")
