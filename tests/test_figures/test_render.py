"""Drawing from records: files, ids, themes, and what happens when something is missing or raises."""

import inspect
import re
import xml.etree.ElementTree as ElementTree

import pytest

from figures import render
from figures.pages import PAGES, load_pages, make_pages, page
from figures.registry import FIGURES, FigureSpec, figure, load_figures
from figures.style import canvas, legend
from verification.errors import UserError
from verification.report import Table, Words
from verification.store import Store


def draw(record, theme):
    drawing, (ax,) = canvas(theme)
    ax.plot(record["x"], record["y"], "o-", label="measured $x^2$")
    ax.set_xlabel("steps")
    legend(ax, theme)
    return drawing


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    store.save_record("curve", {"x": [1, 2, 3], "y": [1.0, float("nan"), 9.0]})
    return store


def spec(name="curve", draw=draw, records=("curve",)):
    return FigureSpec(name, "A curve & more", "What is seen.", records, draw)


def test_both_themes_are_drawn_and_saved(store):
    view = render.render(spec(), store)
    assert view.problem == ""
    assert set(view.svg) == {"light", "dark"}
    names = sorted(path.name for path in (store.out / "figures").iterdir())
    assert names == ["curve-dark.svg", "curve-light.svg", "curve.png"]
    for theme in ("light", "dark"):
        root = ElementTree.fromstring((store.out / f"figures/curve-{theme}.svg").read_text())
        assert root.tag.endswith("svg")
    assert view.svg["light"] != view.svg["dark"]


def test_inlined_pictures_do_not_clash_and_have_a_label_and_real_text(store):
    page = "".join(svg for name in ("one", "two") for svg in render.render(spec(name), store).svg.values())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert ids
    assert len(set(ids)) == len(ids)
    referred = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert referred <= set(ids)
    assert referred
    assert 'aria-label="A curve &amp; more"' in page
    assert "steps" in re.findall(r"<text[^>]*>([^<]+)</text>", page)
    assert "<metadata" not in page
    assert "<?xml" not in page


def test_drawing_is_repeatable(store):
    assert render.render(spec(), store).svg == render.render(spec(), store).svg


def test_a_missing_record_skips_the_figure(store):
    render.render(spec(), store)
    view = render.render(spec(records=("curve", "other")), store)
    assert list((store.out / "figures").iterdir()) == [], "pictures of an earlier run are gone"
    assert view.skipped == "record other is not in this run"
    assert not view.problem
    assert not view.svg


@pytest.mark.parametrize("bad", [lambda record, theme: record["none"], lambda record, theme: None])
def test_a_figure_that_raises_is_reported(store, bad):
    view = render.render(spec(draw=bad), store)
    assert view.problem
    assert "Traceback" in view.trace
    assert not view.svg


def test_processes_share_the_drawing(store, monkeypatch):
    monkeypatch.setattr(render, "WORTH_SHARING", 1)
    names = list(load_figures())[:2]
    for name in names:
        for record in FIGURES[name].records:
            store.save_record(record, {"of": "another shape"})
    alone, shared = render.render_all(store, names), render.render_all(store, names, jobs=2)
    assert [(view.name, view.problem, view.svg) for view in alone] == [(v.name, v.problem, v.svg) for v in shared]


def test_unknown_names_are_refused(store):
    with pytest.raises(UserError, match="unknown figure 'x'; known are"):
        render.render_all(store, ["x"])


def test_a_name_is_registered_once(monkeypatch):
    monkeypatch.setattr("figures.registry.FIGURES", {})
    data = {"name": "n", "title": "t", "caption": "c", "records": ()}
    figure(**data)(draw)
    with pytest.raises(ValueError, match="registered twice"):
        figure(**data)(draw)


def test_every_registered_figure_has_words_and_records():
    for name, item in load_figures().items():
        assert name == item.name
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", name), name
        assert item.title.strip()
        assert item.caption.strip()
        assert item.records
    assert load_figures() is FIGURES


def test_pages_are_made_from_records(monkeypatch, store):
    monkeypatch.setattr("figures.pages.PAGES", {})
    page("good", "Good", ("curve",))(lambda record: [Words("text"), Table(["x"], [[x] for x in record["x"]])])
    page("absent", "Absent", ("curve", "none"))(lambda *records: pytest.fail("made without its records"))
    page("bad", "Bad", ("curve",))(lambda record: [Table(["x", "y"], [[1]])])
    good, bad = make_pages(store)
    assert good.blocks[1].rows == [[1], [2], [3]]
    assert "1 cells under 2 headings" in bad.problem
    with pytest.raises(ValueError, match="registered twice"):
        page("good", "Good", ())(list)


def test_every_registered_page_has_a_title_and_takes_its_records():
    for name, item in load_pages().items():
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", name), name
        assert item.title.strip()
        assert len(inspect.signature(item.make).parameters) == len(item.records), name
    assert load_pages() is PAGES
