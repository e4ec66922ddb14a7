"""No text of a file becomes script: hostile claims, records, figures and formulas, read back as a browser would."""

import copy
import dataclasses
import io
import json
from html.parser import HTMLParser
from xml.etree.ElementTree import SubElement

import matplotlib.pyplot as plt
import pytest
from latex2mathml.converter import convert_to_element

from figures.render import inline
from tests.test_verification.test_report import BASE, FIGURES, RUN, TOPICS
from verification.report import FigureView, Page, Table, Words, build
from verification.report.markup import drawing, math_text
from verification.report.typeset import label, mathml, number, phrase, prose
from verification.store import Store

PAYLOADS = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</math><script>alert(1)</script>",
            '"><svg onload=alert(1)>', "'><iframe src=javascript:alert(1)>", "</style><script>alert(1)</script>",
            "{{ 7 * 7 }}", "<math><mi//xlink:href='javascript:alert(1)'>", "&lt;script&gt;alert(1)&lt;/script&gt;"]
WRAPPERS = [r"{}", r"${}$", r"$\text{{{}}}$", r"$\mathrm{{{}}}$", r"$\operatorname{{{}}}$", r"$$x_{{{}}}$$", r"`{}`",
            r"$\textcolor{{red}}{{{}}}$", r"$\color{{{}}} x$", r"$\href{{{}}}{{x}}$", r"$\hspace{{{}}}$",
            r"$\begin{{array}}{{{}}} 1 \end{{array}}$", r"x_{{{}}}", r"a^({})", r"$\left{} x \right)$",
            r"$\mbox{{{}}}$"]
TEXTS = [wrapper.format(payload) for payload in PAYLOADS for wrapper in WRAPPERS]


class Live(HTMLParser):
    """Everything in a page that runs: scripts, event attributes, addresses that are code, embedded documents."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "embed", "img", "base", "form", "foreignobject"):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            address = name in ("href", "xlink:href", "src", "action", "data", "srcdoc")
            code = address and "script:" in (value or "").lower()
            if name.startswith("on") or code:
                self.found.append(f"<{tag} {name}={value}>")

    handle_startendtag = handle_starttag


def test_the_reader_of_pages_sees_what_runs():
    assert Live("<p onclick=x><script>1</script><a href=' JavaScript:x'>").found == [
        "<p onclick=x>", "<script>", "<a href= JavaScript:x>"]
    assert len(Live("<svg onload='x'/>").found) == 1


@pytest.mark.parametrize("render", [prose, phrase, label, number, lambda text: number([text, {text: text}])])
def test_hostile_texts_stay_texts(render):
    assert [text for text in TEXTS if Live(render(text)).found] == []


def test_a_text_in_a_formula_is_shown_as_it_is():
    assert "<mtext>&lt;script&gt;</mtext>" in mathml(r"\text{<script>}")
    assert "&amp;lt;script" in mathml(r"\text{&lt;script&gt;}")
    assert "<mi>&#x003B1;</mi>" in mathml(r"\alpha")


def test_elements_that_no_formula_has_are_refused_and_their_attributes_dropped():
    element = convert_to_element("x")
    element.set("onclick", "alert(1)")
    element.set("style", "background:url(x)")
    element.set("mathcolor", '"><script>')
    SubElement(element, "mtext").text = "a & b"
    assert math_text(element) == ('<math display="inline" mathcolor="&#34;&gt;&lt;script&gt;"><mrow><mi>x</mi></mrow>'
                                  "<mtext>a &amp; b</mtext></math>")
    SubElement(element, "script").text = "alert(1)"
    with pytest.raises(ValueError, match="no element <script>"):
        math_text(element)


def hostile_result(index, text):
    evidence = {**BASE.evidence[0], "domain": text, "numbers": {text: text, "list": [text, {text: text}]},
                "counts": {text: 3}}
    return dataclasses.replace(
        BASE, id=f"sm-{index:04x}", title=text, statement=text, correction=text, control_note=text,
        control_detail=text, source=text, error=text, figures=(text,), evidence=(evidence,), quote=text,
        reading_note=text, missing=({"need": text, "what": text, "remedy": text},))


def test_a_page_of_hostile_files_runs_nothing_but_its_own_script(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    store.save_claims([hostile_result(index, text) for index, text in enumerate(TEXTS)])
    run = {key: text if isinstance(text := RUN[key], int | float | dict) else TEXTS[17] for key in RUN}
    store.save_run("complete", {**copy.deepcopy(run), "seconds": 1.0, "claims": len(TEXTS), "scale": TEXTS[2],
                                "versions": {TEXTS[0]: TEXTS[2]}, "date": "2026-01-02T03:04:05"}, [])
    store.save_record("drawn", {TEXTS[0]: TEXTS[1]})
    table = Table([TEXTS[0]], [[text] for text in TEXTS], TEXTS[3])
    pages = [Page("page", TEXTS[1], [*(Words(text) for text in TEXTS), table]),
             Page("broken", "b", problem=TEXTS[0])]
    figures = [*FIGURES, FigureView("told", TEXTS[0], TEXTS[2], {"light": '<svg><g id="a"/></svg>'}),
               FigureView("alive", "t", "c", {"light": "<svg><script>alert(1)</script></svg>"}),
               FigureView("failed", "t", TEXTS[0], problem=TEXTS[1])]
    build.write_report(store, TOPICS, figures, pages)
    page = (tmp_path / "report.html").read_text()
    found = Live(page).found
    assert found == ["<form>", "<script>"]  # the report's own: its filter and its script
    assert "<script>alert" not in page
    assert "the drawing holds a &lt;script&gt;" in page
    assert json.loads((tmp_path / "claims.json").read_text())[0]["title"] == TEXTS[0]


@pytest.mark.parametrize("svg", [
    "<svg><script>alert(1)</script></svg>", "<svg onload='x'/>", "<svg><a href='#x'/></svg>", "<svg",
    "<svg><image href='http://example.org/x.png'/></svg>", "<svg><use href='javascript:x'/></svg>",
    "<svg><foreignObject/></svg>", "<svg><style>@import 'x'</style></svg>",
    "<svg><style>p{background:url(http://example.org)}</style></svg>",
    "<svg><set attributeName='href' to='javascript:x'/></svg>",
    '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="http://example.org"/></svg>'])
def test_drawings_that_act_or_load_are_refused(svg):
    with pytest.raises(ValueError, match="drawing"):
        drawing(svg)


def test_a_drawing_with_hostile_labels_is_harmless():
    figure, axes = plt.subplots(figsize=(2, 2))
    axes.set_title("<script>alert(1)</script>")
    axes.plot([0, 1], label='"><svg onload=alert(1)>')
    axes.imshow([[0, 1], [1, 0]])
    axes.legend()
    try:
        with plt.rc_context({"svg.fonttype": "none"}):
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg")
    finally:
        plt.close(figure)
    svg = drawing(inline(buffer.getvalue(), "one-light", '"><script>alert(1)</script>'))
    assert Live(svg).found == []
    assert "&lt;script&gt;" in svg
