"""Draws registered figures from stored records, on both themes, as files and as SVG that can be inlined in a page."""

from __future__ import annotations

import io
import multiprocessing
import re
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from xml.sax.saxutils import quoteattr

import matplotlib

matplotlib.use("Agg")  # no window is ever opened; must come before pyplot

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from deq.names import unknown
from figures.registry import FigureSpec, load_figures
from figures.style import DARK, LIGHT, SETTINGS, Theme
from verification.errors import UserError
from verification.report import FigureView
from verification.store import Store, write_text

#: Fewer figures than these are drawn sooner than another process starts.
WORTH_SHARING = 8
PAGE = {"light": "#ffffff", "dark": "#15181c"}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def render_all(store: Store, names: Sequence[str] = (), jobs: int = 1) -> list[FigureView]:
    """Draw figures by name (all that are registered, where none is named) into `OUT/figures/`.

    A figure whose records are not there is skipped with a note; one that raises is reported in `problem`. With `jobs`
    above one, and enough to draw to be worth it, that many processes share the work.

    Raises:
        UserError: a name that is not registered.
    """
    specs = load_figures()
    for name in names:
        if name not in specs:
            raise UserError(unknown("figure", name, sorted(specs)))
    chosen = [spec for spec in specs.values() if not names or spec.name in names]
    if jobs < 2 or sum(all(store.has_record(name) for name in spec.records) for spec in chosen) < WORTH_SHARING:
        return [render(spec, store) for spec in chosen]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(_render_by_name, [spec.name for spec in chosen], [store.out] * len(chosen)))


def _render_by_name(name: str, out: Path) -> FigureView:
    return render(load_figures()[name], Store(out))


def render(spec: FigureSpec, store: Store) -> FigureView:
    """Draw one figure on both themes; files `NAME-light.svg`, `NAME-dark.svg` and `NAME.png` in `OUT/figures/`."""
    view = FigureView(spec.name, spec.title, spec.caption)
    absent = [name for name in spec.records if not store.has_record(name)]
    if absent:
        for name in (f"{spec.name}-light.svg", f"{spec.name}-dark.svg", f"{spec.name}.png"):
            (store.out / "figures" / name).unlink(missing_ok=True)  # of an earlier run
        view.skipped = f"record {absent[0]} is not in this run"
        return view
    folder = store.out / "figures"
    try:
        records = [store.load_record(name) for name in spec.records]
        for theme in (LIGHT, DARK):
            with plt.rc_context(SETTINGS):
                drawing = spec.draw(*records, theme=theme)
            try:
                svg = _save(drawing, spec, theme, folder)
                view.svg[theme.name] = inline(svg, f"{spec.name}-{theme.name}", spec.title)
            finally:
                plt.close(drawing)
    except Exception as error:  # one broken picture must not cost the others, or the report
        view.problem = f"{type(error).__name__}: {error}"
        view.trace = traceback.format_exc()
        view.svg.clear()
    return view


def _save(drawing: Figure, spec: FigureSpec, theme: Theme, folder: Path) -> str:
    """Write the files of one theme and return the SVG."""
    if not isinstance(drawing, Figure):
        raise TypeError(f"figure {spec.name!r} returned {type(drawing).__name__}, not a matplotlib Figure")
    buffer = io.StringIO()
    with plt.rc_context({**SETTINGS, "svg.hashsalt": spec.name}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Title": spec.title})
    svg = buffer.getvalue()
    # A dark picture on its own needs its dark page; inlined, the report is the page.
    write_text(folder / f"{spec.name}-{theme.name}.svg",
               svg.replace("<svg ", f'<svg style="background:{PAGE[theme.name]}" ', 1))
    if theme is LIGHT:
        drawing.set_layout_engine("none")  # the layout is done; doing it again would cost as much as drawing
        drawing.savefig(folder / f"{spec.name}.png", dpi=160, facecolor=PAGE[theme.name])
    return svg


def inline(svg: str, prefix: str, title: str) -> str:
    """An SVG document as an element for a page: no prologue, no metadata, ids of its own, scaled by CSS, a label."""
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<title>.*?</title>", "", svg, flags=re.S)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'href="#{prefix}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = svg.replace("'DejaVu Sans', 'Bitstream Vera Sans'", f"{_FONTS}, 'DejaVu Sans', 'Bitstream Vera Sans'")
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    if box is None:
        raise ValueError("the SVG has no viewBox")
    return f'<svg {box.group()} role="img" aria-label={quoteattr(title)}>{rest}'
