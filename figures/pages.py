"""The register of report pages that belong to no claim (tables of trained models, benchmarks): `figures.page_*`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from figures.registry import import_prefixed
from verification.report import Block, Page
from verification.store import Store

Make = Callable[..., Sequence[Block]]


@dataclass(frozen=True)
class PageSpec:
    """One page.

    Attributes:
        name: its anchor in the report, letters and dashes.
        title: a line.
        records: names of the records it reads, given to `make` as dictionaries. A page whose records are not all there
            is left out. Empty for a page of stored results alone.
        make: `make(*records) -> list of Words, Table, Picture`.
    """

    name: str
    title: str
    records: tuple[str, ...]
    make: Make


PAGES: dict[str, PageSpec] = {}


def page(name: str, title: str, records: tuple[str, ...]) -> Callable[[Make], Make]:
    """Register the decorated function as a page."""

    def register(make: Make) -> Make:
        if name in PAGES:
            raise ValueError(f"page {name!r} is registered twice")
        PAGES[name] = PageSpec(name, title, records, make)
        return make

    return register


def load_pages() -> dict[str, PageSpec]:
    """Import every `figures.page_*` module and return all pages by name."""
    import_prefixed("page_")
    return PAGES


def make_pages(store: Store) -> list[Page]:
    """The pages whose records are in the results folder; one that raises carries its error."""
    pages = []
    for spec in load_pages().values():
        if not all(store.has_record(name) for name in spec.records):
            continue
        try:
            blocks = tuple(spec.make(*(store.load_record(name) for name in spec.records)))
            pages.append(Page(spec.name, spec.title, blocks))
        except Exception as error:  # one broken page must not cost the report; it is shown there and on the terminal
            pages.append(Page(spec.name, spec.title, problem=f"{type(error).__name__}: {error}"))
    return pages
