"""The page: self-contained, complete, honest about partial runs, gaps and deviations."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from verification.claim import Reading
from verification.coverage import NotCovered
from verification.registry import Topic
from verification.report import FigureView, Page, Picture, Table, Words, build
from verification.result import ClaimResult
from verification.verdict import Verdict

RUN = {
    "schema": 1,
    "state": "complete",
    "commit": "0123456789abcdef",
    "date": "2026-01-02T03:04:05+00:00",
    "scale": "cpu",
    "seed": 7,
    "data": None,
    "versions": {"torch": "2.13.0"},
    "cuda": None,
    "command": "deqproof verify",
    "seconds": 12.3,
}
BASE = ClaimResult(
    id="sm-0001",
    topic="one",
    title="Title with $x^2$",
    source="[SM] Prop. 1",
    statement="$a < b$ and <i>",
    correction="",
    expected=Verdict.SUPPORTED,
    verdict=Verdict.SUPPORTED,
    method=("numerical",),
    seconds=1.5, cpu_seconds=1.0,
    control="passed",
    control_note="sign turned",
    control_detail="came out refuted",
    figures=("curve",),
    evidence=(
        {
            "method": "numerical",
            "outcome": "holds",
            "subject": "statement",
            "domain": "200 cases",
            "numbers": {"max_error": 6.1e-16},
            "counts": {"true": 200, "unsatisfiable": 3},
            "complete": False,
        },
    ),
)
TOPICS = [Topic("one", "The first topic"), Topic("two", "The second topic")]
SVG = '<svg viewBox="0 0 1 1" role="img" aria-label="A curve"><g id="curve-{0}-x"></g></svg>'
FIGURES = [
    FigureView("curve", "A curve", "What is seen.", {theme: SVG.format(theme) for theme in ("light", "dark")}),
    FigureView("loose", "Loose", "Tied to none.", {theme: SVG.format("l" + theme) for theme in ("light", "dark")}),
    FigureView("absent", "Absent", "c", skipped="record x is not in this run"),
    FigureView("broken", "Broken", "c", problem="KeyError: 'second'"),
]


class Parsed(HTMLParser):
    """Collects ids, links, whatever fetches, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetches, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.fetches += [values[key] for key in ("src", "href", "data", "poster", "srcset") if key in values]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> out of order"


PAGES = [Page("tables", "Trained models", [Words("Words with $x_1$."), Picture("loose"), Picture("curve"),
                                           Picture("absent"),
                                           Table(["model", "loss"], [["DKEF", 1e-7], ["NICE", None]], "A caption")]),
         Page("bad", "Bad", problem="ValueError: a row")]


def make(results=(BASE,), run=RUN, figures=FIGURES, pages=()):
    return build.render(list(results), run, TOPICS, figures, pages)


def variant(**changes):
    return dataclasses.replace(BASE, **changes)


MANY = [
    BASE,
    variant(id="sm-0002", verdict=Verdict.REFUTED),
    variant(id="sm-0003", verdict=Verdict.CORRECTED, expected=Verdict.CORRECTED, correction="rather $b < a$"),
    variant(
        id="rmt-0004",
        topic="two",
        verdict=Verdict.UNTESTED,
        control="not run",
        evidence=(),
        method=(),
        missing=({"need": "data:mnist", "what": "no data folder is set", "remedy": "point --data"},),
    ),
    variant(
        id="own-0005",
        topic="two",
        verdict=Verdict.ERROR,
        control="failed",
        error="Traceback\nValueError: <bad>",
        control_detail="the control came out supported",
    ),
]


def test_the_page_is_well_formed_and_fetches_nothing():
    text = make(MANY, pages=PAGES)
    page = Parsed(text)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids), "ids clash"
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link[1:] for link in page.links} <= set(page.ids), "a link leads nowhere"
    assert [place for place in page.fetches if not place.startswith(("data:", "#"))] == []
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert len(text.encode()) < 250_000


def test_the_page_says_what_it_must():
    text = make(MANY)
    assert "1 of 4 claims" not in text
    assert "2 of 4 claims came out otherwise than expected." in text
    for wanted in (
        "<math",
        "[SM] Prop. 1",
        "rather",
        "200 cases",
        "6.1\u202f×\u202f10<sup>−16</sup>",
        "3 unsatisfiable",
        "Negative control passed",
        "sign turned",
        "Negative control failed",
        "ValueError: &lt;bad&gt;",
        "no data folder is set",
        "point --data",
        "0123456789",
        "torch 2.13.0",
        "The second topic",
        "1.5 s",
        "KeyError: &#39;second&#39;",
        "Tied to none.",
        "Not tested in this run",
    ):
        assert wanted in text, wanted
    assert "<i>" not in text.replace("<i class", "")


def test_a_figure_stands_once_and_is_linked_from_other_claims():
    text = make(MANY)
    assert text.count('id="figure-curve"') == 1
    assert text.count('href="#figure-curve"') == 4
    assert "figure-absent" not in text


@pytest.mark.parametrize(("results", "run", "sentence"), [
    ((), RUN, "No claims in this run."),
    ((BASE,), RUN, "The one claim tested came out as expected."),
    ((BASE, MANY[2]), RUN, "All 2 claims tested came out as expected."),
    ((BASE, MANY[2], MANY[3]), RUN, "All 2 claims tested came out as expected; 1 could not be tested here."),
    ((BASE, variant(id="sm-0009", quote="x", reading=Reading.LITERAL)), RUN,
     "All 2 claims tested came out as expected, 1 of them the papers' statements word for word."),
    ((MANY[3],), RUN, "None of the 1 claims could be tested here."),
    ((BASE,), {**RUN, "state": "partial", "claims": 9}, "Partial run: 1 of 9 claims are finished."),
])
def test_headline(results, run, sentence):
    assert f"<h1>{sentence}</h1>" in make(results, run).replace("&#39;", "'")


def test_quotations_stand_above_statements_and_literal_ones_are_counted_apart():
    quoted = variant(id="sm-0009", quote="we set $K = 2$", reading=Reading.LITERAL, verdict=Verdict.REFUTED)
    assumed = variant(id="sm-0010", quote="small", reading=Reading.OURS, reading_note="small is read as below 1 %")
    text = make([quoted, assumed, BASE])
    assert re.search(r'<blockquote class="quote"><p>we set <math', text)
    assert "Reading: literal</h4>" in text
    assert "small is read as below 1 %" in text
    assert "1 of them are statements of the two papers taken at their word: 1 refuted." in text
    assert "[SM] score matching, literal" in text
    assert "[SM] score matching, mended or with an assumption" in text
    assert "taken at their word" not in make([BASE])


def test_an_empty_run_is_a_valid_page():
    page = Parsed(make((), figures=()))
    assert page.open == []


def test_gaps_are_told(monkeypatch):
    monkeypatch.setattr(build, "not_covered", tuple)
    assert "What is not covered" not in make()
    monkeypatch.setattr(build, "not_covered", lambda: (NotCovered("[SM] table 9", "a thing", "a reason"),))
    assert "[SM] table 9" in make()


def test_pages_stand_beside_the_claims():
    text = make(pages=PAGES)
    assert 'href="#page-tables">Trained models</a>' in text
    assert "1\u202f×\u202f10<sup>−7</sup>" in text
    assert text.count('id="figure-loose"') == 1
    assert text.count('id="figure-curve"') == 1
    assert "More figures" not in text, "a figure on a page is not in the gallery too"
    assert "ValueError: a row" in text
